/* What the compiled twins share; see native.py. CPython 3.11 and later. */
#ifndef TURNOUT_NATIVE_H
#define TURNOUT_NATIVE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>
#include <stddef.h>
#include <string.h>

#ifndef CHECKSUM
#define CHECKSUM 0
#endif
#ifndef SOURCES
#define SOURCES ""
#endif

/* A member that holds an object; NULL reads as None. */
#define OBJECT(type, name, field) {name, T_OBJECT, offsetof(type, field), 0, NULL}
#define FLAG(type, name, field) {name, T_BOOL, offsetof(type, field), 0, NULL}

#define GIVEN(o) ((o) != NULL && (o) != Py_None)

/* Take a new value (a reference that is ours) into a field. */
#define REPLACE(field, value) \
    do { PyObject *replaced_ = (PyObject *)(field); (field) = (value); Py_XDECREF(replaced_); } while (0)

static inline int
is_empty_bytes(PyObject *o)
{
    return !GIVEN(o) || (PyBytes_Check(o) && PyBytes_GET_SIZE(o) == 0);
}

/* head + body as one new bytes object. Both must be bytes. */
static inline PyObject *
join_bytes(PyObject *head, PyObject *body)
{
    Py_ssize_t a = PyBytes_GET_SIZE(head), b = PyBytes_GET_SIZE(body);
    PyObject *joined = PyBytes_FromStringAndSize(NULL, a + b);
    if (joined != NULL) {
        memcpy(PyBytes_AS_STRING(joined), PyBytes_AS_STRING(head), (size_t)a);
        memcpy(PyBytes_AS_STRING(joined) + a, PyBytes_AS_STRING(body), (size_t)b);
    }
    return joined;
}

/* Where the first head in `data` ends (behind CR LF CR LF), or 0. */
static inline Py_ssize_t
head_end(PyObject *data)
{
    const char *text = PyBytes_AS_STRING(data);
    const char *found = memmem(text, (size_t)PyBytes_GET_SIZE(data), "\r\n\r\n", 4);
    return found == NULL ? 0 : found - text + 4;
}

/* Does `data` begin with `block`? */
static inline int
begins_with(PyObject *data, PyObject *block)
{
    return block != NULL && PyBytes_GET_SIZE(data) >= PyBytes_GET_SIZE(block)
        && memcmp(PyBytes_AS_STRING(data), PyBytes_AS_STRING(block), (size_t)PyBytes_GET_SIZE(block)) == 0;
}

/* The heads that were recognised last, whoever sent them. A connection remembers only the place of
 * its own: so many heads are kept in memory, however many connections there are. */
#define RECENT 64

typedef struct {
    PyObject *block; /* as sent */
    PyObject *head;  /* as parsed */
    PyObject *status;
    Py_ssize_t length;
    char keep_alive;
} Recent;

typedef struct {
    Recent heads[RECENT];
    unsigned next;
} RecentHeads;

/* Notes in `place` what is asked of such a head each time; -1 with an exception set. */
typedef int (*Note)(Recent *place, PyObject *head);

/* The head that `data` begins with, if it is one of the `known` (a dict: head bytes -> parsed); its
 * place is now the `last` one. NULL when it is not, or with an exception set. */
static inline Recent *
recognise(RecentHeads *recent, unsigned char *last, PyObject *known, PyObject *data, Note note)
{
    if (begins_with(data, recent->heads[*last].block))
        return &recent->heads[*last];
    Py_ssize_t end = head_end(data);
    if (end == 0)
        return NULL;
    PyObject *block = PyBytes_FromStringAndSize(PyBytes_AS_STRING(data), end);
    if (block == NULL)
        return NULL;
    PyObject *head = PyDict_GetItemWithError(known, block);
    if (head == NULL) {
        Py_DECREF(block);
        return NULL;
    }
    Recent noted = {.block = block, .head = Py_NewRef(head)};
    if (note(&noted, head) < 0) {
        Py_DECREF(block);
        Py_DECREF(head);
        return NULL;
    }
    *last = (unsigned char)(recent->next++ % RECENT);
    Recent *place = &recent->heads[*last], former = *place;
    *place = noted;
    Py_XDECREF(former.block);
    Py_XDECREF(former.head);
    Py_XDECREF(former.status);
    return place;
}

/* Call something and forget what it returns; -1 with an exception set. */
static inline int
finish_call(PyObject *result)
{
    if (result == NULL)
        return -1;
    Py_DECREF(result);
    return 0;
}

static inline int
call0(PyObject *self, PyObject *name)
{
    return finish_call(PyObject_CallMethodNoArgs(self, name));
}

static inline int
call1(PyObject *self, PyObject *name, PyObject *argument)
{
    return finish_call(PyObject_CallMethodOneArg(self, name, argument));
}

/* An attribute that is an int. -1 may be its value: ask PyErr_Occurred(). */
static inline Py_ssize_t
get_size(PyObject *self, PyObject *name)
{
    PyObject *value = PyObject_GetAttr(self, name);
    if (value == NULL)
        return -1;
    Py_ssize_t size = PyLong_AsSsize_t(value);
    Py_DECREF(value);
    return size;
}

/* 1, 0, or -1 with an exception set. */
static inline int
get_truth(PyObject *self, PyObject *name)
{
    PyObject *value = PyObject_GetAttr(self, name);
    if (value == NULL)
        return -1;
    int truth = PyObject_IsTrue(value);
    Py_DECREF(value);
    return truth;
}

/* The exception that is set, as an object, and no longer set. */
static inline PyObject *
take_exception(void)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != NULL)
        PyException_SetTraceback(value, traceback);
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return value;
}

/* Deallocation by the type's own clear: a subclass has dealt with what it added. */
#define DEALLOC(name, clear) \
    static void \
    name(PyObject *self) \
    { \
        PyObject_GC_UnTrack(self); \
        (void)clear(self); \
        Py_TYPE(self)->tp_free(self); \
    }

/* Add the types (named after their last dot) and what native.py asks for. */
static inline PyObject *
make_module(struct PyModuleDef *definition, PyTypeObject **types)
{
    PyObject *module = PyModule_Create(definition);
    if (module == NULL)
        return NULL;
    for (; *types != NULL; types++) {
        if (PyModule_AddType(module, *types) < 0)
            goto failed;
    }
    if (PyModule_AddStringConstant(module, "SOURCES", SOURCES) < 0)
        goto failed;
    PyObject *checksum = PyLong_FromUnsignedLong((unsigned long)CHECKSUM);
    if (checksum == NULL || PyModule_AddObjectRef(module, "CHECKSUM", checksum) < 0) {
        Py_XDECREF(checksum);
        goto failed;
    }
    Py_DECREF(checksum);
    return module;
failed:
    Py_DECREF(module);
    return NULL;
}

#endif
