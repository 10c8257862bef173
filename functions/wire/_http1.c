/* The C twin of http1_core.py: same classes, same members, same behaviour. The Python explains
 * itself and says what things mean; here is only said what differs.
 *
 * What differs: a connection remembers which head it got last, so that the usual one, the same
 * again, is recognised by one comparison of memory, without making or hashing a key. */

#include "native.h"

typedef struct {
    PyObject_HEAD
    PyObject *handler;
    PyObject *make_exchange;
    PyObject *known;   /* dict: head bytes -> RequestHead */
    PyObject *answers; /* dict: (status, type, length) -> head bytes */
    double now;
    Py_ssize_t in_flight;
    char draining;
    RecentHeads recent;
} Server;

typedef struct {
    PyObject_HEAD
    PyObject *connection; /* NULL or None once answered */
    PyObject *head;
    PyObject *body;
    PyObject *on_abort;
    PyObject *on_drained;
    PyObject *context;
    char started;
    char streams;
    char raw;
} Exchange;

typedef struct {
    PyObject_HEAD
    Server *server;
    PyObject *write;
    PyObject *exchange;
    PyObject *head;
    PyObject *buffer;
    double touched;
    char keep_alive;
    char lingering;
    char reading_paused;
    char eof;
    unsigned char last; /* where in server->recent the last head is */
} Connection;

static PyTypeObject ServerType, ExchangeType, ConnectionType;

static PyObject *s_advance, *s_answered, *s_close, *s_feed, *s_full_answer, *s_handler_failed,
    *s_keep_alive, *s_length, *s_make_answer, *s_plain, *s_settled;

/* --- ServerCore ------------------------------------------------------------------------------ */

static int
server_init(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"handler", "make_exchange", "known", NULL};
    Server *self = (Server *)op;
    PyObject *handler, *make_exchange, *known;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOO!:ServerCore", names, &handler, &make_exchange,
                                     &PyDict_Type, &known))
        return -1;
    PyObject *answers = PyDict_New();
    if (answers == NULL)
        return -1;
    REPLACE(self->answers, answers);
    REPLACE(self->handler, Py_NewRef(handler));
    REPLACE(self->make_exchange, Py_NewRef(make_exchange));
    REPLACE(self->known, Py_NewRef(known));
    self->now = 0.0;
    self->in_flight = 0;
    self->draining = 0;
    return 0;
}

static int
server_traverse(PyObject *op, visitproc visit, void *arg)
{
    Server *self = (Server *)op;
    Py_VISIT(self->handler);
    Py_VISIT(self->make_exchange);
    Py_VISIT(self->known);
    Py_VISIT(self->answers);
    for (int i = 0; i < RECENT; i++)
        Py_VISIT(self->recent.heads[i].head);
    return 0;
}

static int
server_clear(PyObject *op)
{
    Server *self = (Server *)op;
    Py_CLEAR(self->handler);
    Py_CLEAR(self->make_exchange);
    Py_CLEAR(self->known);
    Py_CLEAR(self->answers);
    for (int i = 0; i < RECENT; i++) {
        Py_CLEAR(self->recent.heads[i].block);
        Py_CLEAR(self->recent.heads[i].head);
    }
    return 0;
}

DEALLOC(server_dealloc, server_clear)

static PyMemberDef server_members[] = {
    OBJECT(Server, "handler", handler),
    OBJECT(Server, "make_exchange", make_exchange),
    {"known", T_OBJECT, offsetof(Server, known), READONLY, NULL},
    {"answers", T_OBJECT, offsetof(Server, answers), READONLY, NULL},
    {"now", T_DOUBLE, offsetof(Server, now), 0, NULL},
    {"in_flight", T_PYSSIZET, offsetof(Server, in_flight), 0, NULL},
    FLAG(Server, "draining", draining),
    {NULL},
};

static PyTypeObject ServerType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "functions.wire._http1.ServerCore",
    .tp_basicsize = sizeof(Server),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .tp_new = PyType_GenericNew,
    .tp_init = server_init,
    .tp_traverse = server_traverse,
    .tp_clear = server_clear,
    .tp_dealloc = server_dealloc,
    .tp_members = server_members,
};

/* --- ExchangeCore ---------------------------------------------------------------------------- */

static PyObject *
exchange_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    Exchange *self = (Exchange *)type->tp_alloc(type, 0);
    if (self != NULL)
        self->streams = 1;
    return (PyObject *)self;
}

static void
exchange_fill(Exchange *self, PyObject *connection, PyObject *head, PyObject *body)
{
    REPLACE(self->connection, Py_NewRef(connection));
    REPLACE(self->head, Py_NewRef(head));
    REPLACE(self->body, Py_NewRef(body));
}

static int
exchange_init(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"connection", "head", "body", NULL};
    PyObject *connection, *head, *body;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOO:ExchangeCore", names, &connection, &head, &body))
        return -1;
    exchange_fill((Exchange *)op, connection, head, body);
    return 0;
}

static int
exchange_traverse(PyObject *op, visitproc visit, void *arg)
{
    Exchange *self = (Exchange *)op;
    Py_VISIT(self->connection);
    Py_VISIT(self->head);
    Py_VISIT(self->body);
    Py_VISIT(self->on_abort);
    Py_VISIT(self->on_drained);
    Py_VISIT(self->context);
    return 0;
}

static int
exchange_clear(PyObject *op)
{
    Exchange *self = (Exchange *)op;
    Py_CLEAR(self->connection);
    Py_CLEAR(self->head);
    Py_CLEAR(self->body);
    Py_CLEAR(self->on_abort);
    Py_CLEAR(self->on_drained);
    Py_CLEAR(self->context);
    return 0;
}

DEALLOC(exchange_dealloc, exchange_clear)

static PyObject *connection_answered(PyObject *op, PyObject *unused);

/* The bytes of an ordinary answer: a head kept ready, and the body. */
static PyObject *
plain_answer(Server *server, PyObject *status, PyObject *body, PyObject *content_type)
{
    PyObject *joined = NULL;
    PyObject *length = PyLong_FromSsize_t(PyBytes_GET_SIZE(body));
    PyObject *key = length == NULL ? NULL : PyTuple_Pack(3, status, content_type, length);
    if (key != NULL) {
        PyObject *head = PyDict_GetItemWithError(server->answers, key);
        if (head != NULL)
            Py_INCREF(head);
        else if (!PyErr_Occurred()) {
            PyObject *arguments[] = {(PyObject *)server, status, content_type, length};
            head = PyObject_VectorcallMethod(s_make_answer, arguments, 4, NULL);
        }
        if (head != NULL && !PyBytes_Check(head))
            PyErr_SetString(PyExc_TypeError, "an answer's head must be bytes");
        else if (head != NULL)
            joined = join_bytes(head, body);
        Py_XDECREF(head);
    }
    Py_XDECREF(key);
    Py_XDECREF(length);
    return joined;
}

/* Nothing special about this answer: 1; something: 0; -1 with an exception set. */
static int
is_plain(Exchange *self, Server *server, PyObject *status, PyObject *body, PyObject *content_type,
         PyObject *extra)
{
    if (server->draining || !PyBytes_CheckExact(body) || !PyBytes_CheckExact(content_type)
        || !PyBytes_Check(extra) || PyBytes_GET_SIZE(extra) != 0)
        return 0;
    long number = PyLong_AsLong(status);
    if (number == -1 && PyErr_Occurred())
        return -1;
    return number == 204 || number == 304 ? 0 : get_truth(self->head, s_plain);
}

static PyObject *
exchange_answer(Exchange *self, PyObject *status, PyObject *body, PyObject *content_type, PyObject *extra)
{
    if (!GIVEN(self->connection))
        Py_RETURN_NONE;
    PyObject *connection = self->connection;
    self->connection = NULL; /* its reference is ours now */
    Py_CLEAR(self->on_abort);
    PyObject *result = NULL, *data = NULL, *write = NULL;
    if (!PyObject_TypeCheck(connection, &ConnectionType)) {
        PyErr_SetString(PyExc_TypeError, "an exchange needs a ConnectionCore");
        goto done;
    }
    Server *server = ((Connection *)connection)->server;
    int plain = is_plain(self, server, status, body, content_type, extra);
    if (plain < 0)
        goto done;
    if (plain)
        data = plain_answer(server, status, body, content_type);
    else {
        PyObject *arguments[] = {(PyObject *)self, connection, status, body, content_type, extra};
        data = PyObject_VectorcallMethod(s_full_answer, arguments, 6, NULL);
    }
    if (data == NULL)
        goto done;
    write = Py_XNewRef(((Connection *)connection)->write);
    if (GIVEN(write) && finish_call(PyObject_CallOneArg(write, data)) < 0)
        goto done;
    result = connection_answered(connection, NULL);
done:
    Py_XDECREF(write);
    Py_XDECREF(data);
    Py_DECREF(connection);
    return result;
}

static PyObject *
exchange_respond(PyObject *op, PyObject *const *args, Py_ssize_t count, PyObject *kwnames)
{
    static const char *const names[] = {"status", "body", "content_type", "extra"};
    PyObject *nothing = PyBytes_FromStringAndSize(NULL, 0); /* the one empty bytes object */
    if (nothing == NULL)
        return NULL;
    PyObject *given[4] = {NULL, nothing, nothing, nothing};
    PyObject *result = NULL;
    if (count > 4) {
        PyErr_SetString(PyExc_TypeError, "respond() takes at most 4 arguments");
        goto done;
    }
    for (Py_ssize_t i = 0; i < count; i++)
        given[i] = args[i];
    for (Py_ssize_t k = 0; kwnames != NULL && k < PyTuple_GET_SIZE(kwnames); k++) {
        PyObject *name = PyTuple_GET_ITEM(kwnames, k);
        Py_ssize_t i = 0;
        while (i < 4 && PyUnicode_CompareWithASCIIString(name, names[i]) != 0)
            i++;
        if (i == 4 || i < count) {
            PyErr_Format(PyExc_TypeError, "respond() got an unexpected argument %R", name);
            goto done;
        }
        given[i] = args[count + k];
    }
    if (given[0] == NULL) {
        PyErr_SetString(PyExc_TypeError, "respond() needs a status");
        goto done;
    }
    result = exchange_answer((Exchange *)op, given[0], given[1], given[2], given[3]);
done:
    Py_DECREF(nothing);
    return result;
}

static PyMethodDef exchange_methods[] = {
    {"respond", (PyCFunction)(void (*)(void))exchange_respond, METH_FASTCALL | METH_KEYWORDS, NULL},
    {NULL},
};

static PyMemberDef exchange_members[] = {
    OBJECT(Exchange, "_connection", connection),
    OBJECT(Exchange, "head", head),
    OBJECT(Exchange, "body", body),
    OBJECT(Exchange, "on_abort", on_abort),
    OBJECT(Exchange, "on_drained", on_drained),
    OBJECT(Exchange, "context", context),
    FLAG(Exchange, "started", started),
    FLAG(Exchange, "streams", streams),
    FLAG(Exchange, "_raw", raw),
    {NULL},
};

static PyTypeObject ExchangeType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "functions.wire._http1.ExchangeCore",
    .tp_basicsize = sizeof(Exchange),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .tp_new = exchange_new,
    .tp_init = exchange_init,
    .tp_traverse = exchange_traverse,
    .tp_clear = exchange_clear,
    .tp_dealloc = exchange_dealloc,
    .tp_methods = exchange_methods,
    .tp_members = exchange_members,
};

/* --- ConnectionCore -------------------------------------------------------------------------- */

static int
connection_init(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"server", NULL};
    Connection *self = (Connection *)op;
    PyObject *server;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!:ConnectionCore", names, &ServerType, &server))
        return -1;
    PyObject *buffer = PyBytes_FromStringAndSize(NULL, 0);
    if (buffer == NULL)
        return -1;
    REPLACE(self->buffer, buffer);
    REPLACE(self->server, (Server *)Py_NewRef(server));
    self->touched = self->server->now;
    self->keep_alive = 1;
    return 0;
}

static int
connection_traverse(PyObject *op, visitproc visit, void *arg)
{
    Connection *self = (Connection *)op;
    Py_VISIT(self->server);
    Py_VISIT(self->write);
    Py_VISIT(self->exchange);
    Py_VISIT(self->head);
    Py_VISIT(self->buffer);
    return 0;
}

static int
connection_clear(PyObject *op)
{
    Connection *self = (Connection *)op;
    Py_CLEAR(self->server);
    Py_CLEAR(self->write);
    Py_CLEAR(self->exchange);
    Py_CLEAR(self->head);
    Py_CLEAR(self->buffer);
    return 0;
}

DEALLOC(connection_dealloc, connection_clear)

/* A new exchange. A subclass of ours that adds nothing to how one is made is filled directly. */
static PyObject *
make_exchange(Server *server, PyObject *connection, PyObject *head, PyObject *body)
{
    PyObject *make = server->make_exchange;
    if (PyType_Check(make) && PyType_IsSubtype((PyTypeObject *)make, &ExchangeType)
        && ((PyTypeObject *)make)->tp_init == exchange_init && ((PyTypeObject *)make)->tp_new == exchange_new) {
        PyObject *exchange = exchange_new((PyTypeObject *)make, NULL, NULL);
        if (exchange != NULL)
            exchange_fill((Exchange *)exchange, connection, head, body);
        return exchange;
    }
    PyObject *arguments[] = {connection, head, body};
    return PyObject_Vectorcall(make, arguments, 3, NULL);
}

static int
dispatch(Connection *self, PyObject *head, PyObject *body, int keep_alive)
{
    Server *server = self->server;
    self->touched = server->now;
    PyObject *exchange = make_exchange(server, (PyObject *)self, head, body);
    if (exchange == NULL)
        return -1;
    REPLACE(self->exchange, Py_NewRef(exchange));
    self->keep_alive = (char)keep_alive;
    server->in_flight++;
    PyObject *handler = Py_NewRef(server->handler);
    int failed = finish_call(PyObject_CallOneArg(handler, exchange)) < 0;
    Py_DECREF(handler);
    if (failed && PyErr_ExceptionMatches(PyExc_Exception)) {
        PyObject *error = take_exception();
        PyObject *arguments[] = {(PyObject *)self, exchange, error};
        failed = finish_call(PyObject_VectorcallMethod(s_handler_failed, arguments, 3, NULL)) < 0;
        Py_DECREF(error);
    }
    Py_DECREF(exchange);
    return failed ? -1 : 0;
}

static int
note_request(Recent *place, PyObject *head)
{
    place->length = get_size(head, s_length);
    int keep_alive = place->length == -1 && PyErr_Occurred() ? -1 : get_truth(head, s_keep_alive);
    place->keep_alive = (char)keep_alive;
    return keep_alive < 0 ? -1 : 0;
}

static PyObject *
connection_data_received(PyObject *op, PyObject *data)
{
    Connection *self = (Connection *)op;
    if (!PyBytes_CheckExact(data)) {
        PyErr_SetString(PyExc_TypeError, "data must be bytes");
        return NULL;
    }
    if (!GIVEN(self->exchange) && !GIVEN(self->head) && is_empty_bytes(self->buffer) && !self->lingering) {
        Server *server = self->server;
        Recent *known = recognise(&server->recent, &self->last, server->known, data, note_request);
        if (known == NULL && PyErr_Occurred())
            return NULL;
        Py_ssize_t end = known == NULL ? 0 : PyBytes_GET_SIZE(known->block);
        if (known != NULL && known->length == PyBytes_GET_SIZE(data) - end) {
            /* The one-packet path: a head seen before and exactly its body. */
            int keep_alive = known->keep_alive; /* what is called may reuse the place */
            PyObject *head = Py_NewRef(known->head);
            PyObject *body = PyBytes_FromStringAndSize(PyBytes_AS_STRING(data) + end, known->length);
            int failed = body == NULL || dispatch(self, head, body, keep_alive) < 0;
            Py_DECREF(head);
            Py_XDECREF(body);
            if (failed)
                return NULL;
            Py_RETURN_NONE;
        }
        self->touched = self->server->now;
    }
    return PyObject_CallMethodOneArg(op, s_feed, data);
}

static PyObject *
connection_dispatch(PyObject *op, PyObject *const *args, Py_ssize_t count)
{
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "_dispatch() takes a head and a body");
        return NULL;
    }
    int keep_alive = get_truth(args[0], s_keep_alive);
    if (keep_alive < 0 || dispatch((Connection *)op, args[0], args[1], keep_alive) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *
connection_answered(PyObject *op, PyObject *Py_UNUSED(unused))
{
    Connection *self = (Connection *)op;
    Server *server = self->server;
    Py_CLEAR(self->exchange);
    self->touched = server->now;
    server->in_flight--;
    if (!self->keep_alive || server->draining) {
        if (call0(op, s_close) < 0)
            return NULL;
    }
    else if (!is_empty_bytes(self->buffer) || self->eof || self->reading_paused) {
        if (call0(op, s_advance) < 0)
            return NULL;
    }
    if (server->draining && call0((PyObject *)server, s_settled) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef connection_methods[] = {
    {"data_received", connection_data_received, METH_O, NULL},
    {"_dispatch", (PyCFunction)(void (*)(void))connection_dispatch, METH_FASTCALL, NULL},
    {"answered", connection_answered, METH_NOARGS, NULL},
    {NULL},
};

static PyMemberDef connection_members[] = {
    {"server", T_OBJECT, offsetof(Connection, server), READONLY, NULL},
    OBJECT(Connection, "write", write),
    OBJECT(Connection, "_exchange", exchange),
    OBJECT(Connection, "_head", head),
    OBJECT(Connection, "_buffer", buffer),
    {"touched", T_DOUBLE, offsetof(Connection, touched), 0, NULL},
    FLAG(Connection, "keep_alive", keep_alive),
    FLAG(Connection, "_lingering", lingering),
    FLAG(Connection, "_reading_paused", reading_paused),
    FLAG(Connection, "_eof", eof),
    {NULL},
};

static PyTypeObject ConnectionType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "functions.wire._http1.ConnectionCore",
    .tp_basicsize = sizeof(Connection),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .tp_new = PyType_GenericNew,
    .tp_init = connection_init,
    .tp_traverse = connection_traverse,
    .tp_clear = connection_clear,
    .tp_dealloc = connection_dealloc,
    .tp_methods = connection_methods,
    .tp_members = connection_members,
};

/* --- the module ------------------------------------------------------------------------------ */

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "functions.wire._http1",
    .m_doc = "The C twin of functions.wire.http1_core.",
    .m_size = -1,
};

PyMODINIT_FUNC
PyInit__http1(void)
{
    static PyTypeObject *types[] = {&ServerType, &ExchangeType, &ConnectionType, NULL};
    if (!(s_advance = PyUnicode_InternFromString("_advance"))
        || !(s_answered = PyUnicode_InternFromString("answered"))
        || !(s_close = PyUnicode_InternFromString("close"))
        || !(s_feed = PyUnicode_InternFromString("_feed"))
        || !(s_full_answer = PyUnicode_InternFromString("_full_answer"))
        || !(s_handler_failed = PyUnicode_InternFromString("_handler_failed"))
        || !(s_keep_alive = PyUnicode_InternFromString("keep_alive"))
        || !(s_length = PyUnicode_InternFromString("length"))
        || !(s_make_answer = PyUnicode_InternFromString("make_answer"))
        || !(s_plain = PyUnicode_InternFromString("plain"))
        || !(s_settled = PyUnicode_InternFromString("settled")))
        return NULL;
    return make_module(&definition, types);
}
