/* The C twin of gjson/validity.py: is a text JSON, exactly as strictly as Go judges it? One pass, a
 * bit per open container instead of recursion, strings sixteen bytes at a time where SSE2 is. */

#include "native.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#define MAX_DEPTH 10000

/* A text ends in a NUL, as bytes objects do: it stops every scan, so only a string, in which a NUL
 * may not stand either, needs to know where the text really ends. */
typedef const unsigned char *Text;

static inline Text
skip_blanks(Text at)
{
    while (*at == ' ' || *at == '\n' || *at == '\r' || *at == '\t')
        at++;
    return at;
}

static inline int
is_digit(Text at)
{
    return (unsigned)(*at - '0') < 10;
}

static inline Text
skip_digits(Text at)
{
    while (is_digit(at))
        at++;
    return at;
}

/* The functions below take `at` on the first byte of a value and return where it ends, or NULL. */

static inline Text
scan_number(Text at)
{
    if (*at == '-')
        at++;
    if (*at == '0')
        at++;
    else if (is_digit(at))
        at = skip_digits(at + 1);
    else
        return NULL;
    if (*at == '.') {
        if (!is_digit(++at))
            return NULL;
        at = skip_digits(at + 1);
    }
    if ((*at | 0x20) == 'e') {
        at++;
        if (*at == '+' || *at == '-')
            at++;
        if (!is_digit(at))
            return NULL;
        at = skip_digits(at + 1);
    }
    return at;
}

/* To the next byte that ends plain text inside a string: a quote, a backslash, a control (the NUL
 * at the end is one). */
static inline Text
skip_plain(Text at, Text end)
{
#ifdef __SSE2__
    const __m128i quote = _mm_set1_epi8('"'), slash = _mm_set1_epi8('\\'), last_control = _mm_set1_epi8(0x1f);
    while (end - at >= 16) {
        __m128i text = _mm_loadu_si128((const __m128i *)at);
        __m128i control = _mm_cmpeq_epi8(_mm_min_epu8(text, last_control), text);
        __m128i stops = _mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8(text, quote), _mm_cmpeq_epi8(text, slash)), control);
        int found = _mm_movemask_epi8(stops);
        if (found != 0)
            return at + __builtin_ctz((unsigned)found);
        at += 16;
    }
#endif
    while (*at != '"' && *at != '\\' && *at > 0x1f)
        at++;
    return at;
}

static inline int
is_hex(unsigned char c)
{
    return (unsigned)(c - '0') < 10 || (unsigned)((c | 0x20) - 'a') < 6;
}

static Text
scan_string(Text at, Text end)
{
    at++;
    for (;;) {
        at = skip_plain(at, end);
        if (*at <= 0x1f)
            return NULL;
        if (*at++ == '"')
            return at;
        switch (*at++) {
        case '"': case '\\': case '/': case 'b': case 'f': case 'n': case 'r': case 't':
            break;
        case 'u':
            if (!is_hex(at[0]) || !is_hex(at[1]) || !is_hex(at[2]) || !is_hex(at[3]))
                return NULL;
            at += 4;
            break;
        default:
            return NULL;
        }
    }
}

static inline Text
scan_word(Text at, const char *word, size_t length)
{
    return strncmp((const char *)at, word, length) == 0 ? at + length : NULL;
}

/* An object's key and its colon; `at` may be on blanks. */
static Text
scan_key(Text at, Text end)
{
    at = skip_blanks(at);
    if (*at != '"' || (at = scan_string(at, end)) == NULL)
        return NULL;
    at = skip_blanks(at);
    return *at == ':' ? at + 1 : NULL;
}

static int
is_json(Text at, Text end)
{
    unsigned char objects[MAX_DEPTH / 8]; /* one bit a level: is it an object? */
    int depth = 0;
    for (;;) {
        /* A value is due. */
        at = skip_blanks(at);
        switch (*at) {
        case '"': at = scan_string(at, end); break;
        case 't': at = scan_word(at, "true", 4); break;
        case 'f': at = scan_word(at, "false", 5); break;
        case 'n': at = scan_word(at, "null", 4); break;
        case '[':
        case '{': {
            int is_object = *at == '{';
            if (depth == MAX_DEPTH)
                return 0;
            Text inside = skip_blanks(at + 1);
            if (*inside == (is_object ? '}' : ']')) {
                at = inside + 1;
                break;
            }
            unsigned char bit = (unsigned char)(1 << (depth & 7));
            unsigned char *place = &objects[depth >> 3];
            depth++;
            *place = (unsigned char)(is_object ? *place | bit : *place & ~bit);
            at = is_object ? scan_key(inside, end) : inside;
            if (at == NULL)
                return 0;
            continue;
        }
        default:
            at = scan_number(at);
            if (depth == 0 || objects[(depth - 1) >> 3] >> ((depth - 1) & 7) & 1)
                break;
            while (at != NULL && *at == ',') { /* tensors: rows of numbers, without the detour */
                Text next = at + 1 + (at[1] == ' ');
                if (!is_digit(next) && *next != '-')
                    break;
                at = scan_number(next);
            }
        }
        if (at == NULL)
            return 0;
        /* A value has ended: close what closes, until another one is due. */
        for (;;) {
            at = skip_blanks(at);
            if (depth == 0)
                return at == end;
            int is_object = objects[(depth - 1) >> 3] >> ((depth - 1) & 7) & 1;
            unsigned char c = *at++;
            if (c == ',') {
                if (is_object && (at = scan_key(at, end)) == NULL)
                    return 0;
                break;
            }
            if (c != (is_object ? '}' : ']'))
                return 0;
            depth--;
        }
    }
}

/* Where the text of a bytes object begins, or NULL with an exception set. */
static Text
text_of(PyObject *object)
{
    if (PyBytes_Check(object))
        return (Text)PyBytes_AS_STRING(object);
    PyErr_SetString(PyExc_TypeError, "a text must be bytes");
    return NULL;
}

static PyObject *
json_is_valid(PyObject *Py_UNUSED(module), PyObject *object)
{
    Text text = text_of(object);
    return text == NULL ? NULL : PyBool_FromLong(is_json(text, text + PyBytes_GET_SIZE(object)));
}

static PyObject *
json_is_object_or_null(PyObject *Py_UNUSED(module), PyObject *object)
{
    Text text = text_of(object);
    if (text == NULL)
        return NULL;
    Text at = skip_blanks(text);
    return PyBool_FromLong((*at == '{' || *at == 'n') && is_json(at, text + PyBytes_GET_SIZE(object)));
}

static PyMethodDef methods[] = {
    {"is_valid", json_is_valid, METH_O, NULL},
    {"is_object_or_null", json_is_object_or_null, METH_O, NULL},
    {NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "router_fn._json",
    .m_doc = "The C twin of router_fn.gjson.validity.",
    .m_size = -1,
    .m_methods = methods,
};

PyMODINIT_FUNC
PyInit__json(void)
{
    static PyTypeObject *types[] = {NULL};
    return make_module(&definition, types);
}
