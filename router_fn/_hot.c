/* The C twins of Wait and Fiber (fibers.py), Reply (replies.py), CallCore and UpstreamCore
 * (calls_core.py): same classes, same members, same behaviour. The Python explains itself; here is
 * only said what differs.
 *
 * What differs: a Wait is its own `__await__` iterator; a Fiber that waits is driven on without a
 * method call; an upstream connection remembers which head it got last (see _http1.c). */

#include "native.h"

enum { PENDING, DONE, FAILED, CANCELLED };

typedef struct {
    PyObject_HEAD
    PyObject *listener;
    PyObject *value; /* the value, or the error */
    char state;
    char yielded; /* handed to a driver; next time it is asked for its value */
} Wait;

typedef struct {
    Wait wait;
    PyObject *coroutine;
    PyObject *waiting;
} Fiber;

typedef struct {
    PyObject_HEAD
    PyObject *status;
    PyObject *body;
    PyObject *head;
    char made_json;
} Reply;

typedef struct {
    Wait wait;
    PyObject *target;
    PyObject *incoming;
    PyObject *body;
    PyObject *extra_head;
    PyObject *on_sent;
    PyObject *message;
    PyObject *stream_to;
    PyObject *connection;
    PyObject *timer;
    char cancelled;
} Call;

typedef struct {
    PyObject_HEAD
    PyObject *origin;
    PyObject *pool;
    PyObject *idle;    /* list */
    PyObject *waiting; /* deque */
    PyObject *known;   /* dict: head bytes -> ResponseHead */
    PyObject *write;
    PyObject *transport;
    PyObject *receiver;
    PyObject *head;
    PyObject *buffer;
    PyObject *idle_since;
    char alive;
    char fresh;
    unsigned char last; /* where in `recent` the last head is */
} Upstream;

/* The heads of plain answers, of all upstreams; kept as long as the process. */
static RecentHeads recent;

static PyTypeObject WaitType, FiberType, ReplyType, CallType, UpstreamType;

static PyObject *s_attach, *s_begin, *s_cancel, *s_close, *s_detach, *s_feed, *s_head, *s_heads,
    *s_idle, *s_last_answer, *s_length, *s_now, *s_origin, *s_redirect, *s_release, *s_replied,
    *s_resolve, *s_resume, *s_send, *s_settle, *s_start_timer, *s_status, *s_timeout_s,
    *s_transmit, *s_transmit_unusual, *s_writelines;

/* What is made for every call takes its arguments by position only: parsing names costs more than
 * the rest of it. */
static inline int
has_keywords(PyObject *kwargs)
{
    if (kwargs == NULL || PyDict_GET_SIZE(kwargs) == 0)
        return 0;
    PyErr_SetString(PyExc_TypeError, "no keyword arguments here");
    return 1;
}

/* --- Wait ------------------------------------------------------------------------------------ */

static int fiber_run(Fiber *self);

static int
wait_traverse(PyObject *op, visitproc visit, void *arg)
{
    Wait *self = (Wait *)op;
    Py_VISIT(self->listener);
    Py_VISIT(self->value);
    return 0;
}

static int
wait_clear(PyObject *op)
{
    Wait *self = (Wait *)op;
    Py_CLEAR(self->listener);
    Py_CLEAR(self->value);
    return 0;
}

DEALLOC(wait_dealloc, wait_clear)

static int
tell(PyObject *listener, PyObject *wait)
{
    return Py_IS_TYPE(listener, &FiberType) ? fiber_run((Fiber *)listener) : call1(listener, s_resume, wait);
}

/* Resolve or fail: the value is borrowed. */
static int
wait_settle(Wait *self, char state, PyObject *value)
{
    if (self->state != PENDING)
        return 0;
    self->state = state;
    REPLACE(self->value, Py_NewRef(value));
    PyObject *listener = self->listener;
    self->listener = NULL; /* its reference is ours now; and it may hold us */
    if (!GIVEN(listener)) {
        Py_XDECREF(listener);
        return 0;
    }
    Py_INCREF(self);
    int failed = tell(listener, (PyObject *)self);
    Py_DECREF(self);
    Py_DECREF(listener);
    return failed;
}

static PyObject *
wait_resolve(PyObject *op, PyObject *value)
{
    if (wait_settle((Wait *)op, DONE, value) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *
wait_fail(PyObject *op, PyObject *error)
{
    if (!PyExceptionInstance_Check(error)) {
        PyErr_SetString(PyExc_TypeError, "a Wait fails with an exception");
        return NULL;
    }
    if (wait_settle((Wait *)op, FAILED, error) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static void
wait_forget(Wait *self)
{
    if (self->state == PENDING) {
        self->state = CANCELLED;
        Py_CLEAR(self->listener);
    }
}

static PyObject *
wait_cancel(PyObject *op, PyObject *Py_UNUSED(unused))
{
    wait_forget((Wait *)op);
    Py_RETURN_NONE;
}

static PyObject *
wait_attach(PyObject *op, PyObject *listener)
{
    Wait *self = (Wait *)op;
    if (self->state == PENDING)
        REPLACE(self->listener, Py_NewRef(listener));
    else if (tell(listener, op) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *
wait_detach(PyObject *op, PyObject *Py_UNUSED(unused))
{
    Py_CLEAR(((Wait *)op)->listener);
    Py_RETURN_NONE;
}

/* The value as a new reference, or the error raised. */
static PyObject *
wait_outcome(Wait *self)
{
    PyObject *value = self->value == NULL ? Py_None : self->value;
    if (self->state != FAILED)
        return Py_NewRef(value);
    PyErr_SetObject((PyObject *)Py_TYPE(value), value);
    return NULL;
}

static PyObject *
wait_result(PyObject *op, PyObject *Py_UNUSED(unused))
{
    return wait_outcome((Wait *)op);
}

static PyObject *
wait_await(PyObject *op)
{
    ((Wait *)op)->yielded = 0;
    return Py_NewRef(op);
}

static PySendResult
wait_send(PyObject *op, PyObject *Py_UNUSED(sent), PyObject **result)
{
    Wait *self = (Wait *)op;
    if (self->state == PENDING && !self->yielded) {
        self->yielded = 1;
        *result = Py_NewRef(op);
        return PYGEN_NEXT;
    }
    *result = wait_outcome(self);
    return *result == NULL ? PYGEN_ERROR : PYGEN_RETURN;
}

static PyObject *
wait_next(PyObject *op)
{
    PyObject *result;
    PySendResult how = wait_send(op, Py_None, &result);
    if (how != PYGEN_RETURN)
        return result;
    /* As _PyGen_SetStopIterationValue: an exception made here cannot be mistaken for its value. */
    PyObject *stop = PyObject_CallOneArg(PyExc_StopIteration, result);
    Py_DECREF(result);
    if (stop != NULL) {
        PyErr_SetObject(PyExc_StopIteration, stop);
        Py_DECREF(stop);
    }
    return NULL;
}

static PyObject *
wait_pending(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((Wait *)op)->state == PENDING);
}

static PyObject *
wait_is_error(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((Wait *)op)->state == FAILED);
}

static PyMethodDef wait_methods[] = {
    {"resolve", wait_resolve, METH_O, NULL},
    {"fail", wait_fail, METH_O, NULL},
    {"cancel", wait_cancel, METH_NOARGS, NULL},
    {"attach", wait_attach, METH_O, NULL},
    {"detach", wait_detach, METH_NOARGS, NULL},
    {"result", wait_result, METH_NOARGS, NULL},
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, NULL},
    {NULL},
};

static PyMemberDef wait_members[] = {
    {"error", T_OBJECT, offsetof(Wait, value), READONLY, NULL},
    {NULL},
};

static PyGetSetDef wait_properties[] = {
    {"pending", wait_pending, NULL, NULL, NULL},
    {"is_error", wait_is_error, NULL, NULL, NULL},
    {NULL},
};

static PyAsyncMethods wait_async = {.am_await = wait_await, .am_send = wait_send};

static PyTypeObject WaitType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "router_fn._hot.Wait",
    .tp_basicsize = sizeof(Wait),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .tp_new = PyType_GenericNew,
    .tp_traverse = wait_traverse,
    .tp_clear = wait_clear,
    .tp_dealloc = wait_dealloc,
    .tp_as_async = &wait_async,
    .tp_iternext = wait_next,
    .tp_methods = wait_methods,
    .tp_members = wait_members,
    .tp_getset = wait_properties,
};

/* --- Fiber ----------------------------------------------------------------------------------- */

/* Run the coroutine on to its next waiting point. */
static int
fiber_run(Fiber *self)
{
    Py_CLEAR(self->waiting);
    PyObject *result;
    PyObject *coroutine = Py_NewRef(self->coroutine);
    PySendResult how = PyIter_Send(coroutine, Py_None, &result);
    Py_DECREF(coroutine);
    int failed;
    if (how == PYGEN_NEXT) {
        REPLACE(self->waiting, Py_NewRef(result));
        failed = call1(result, s_attach, (PyObject *)self);
        Py_DECREF(result);
        return failed;
    }
    if (how == PYGEN_RETURN) {
        failed = wait_settle(&self->wait, DONE, result);
        Py_DECREF(result);
        return failed;
    }
    if (!PyErr_ExceptionMatches(PyExc_Exception))
        return -1;
    PyObject *error = take_exception();
    failed = wait_settle(&self->wait, FAILED, error);
    Py_DECREF(error);
    return failed;
}

static int
fiber_init(PyObject *op, PyObject *args, PyObject *kwargs)
{
    PyObject *coroutine;
    if (has_keywords(kwargs) || !PyArg_UnpackTuple(args, "Fiber", 1, 1, &coroutine))
        return -1;
    REPLACE(((Fiber *)op)->coroutine, Py_NewRef(coroutine));
    return fiber_run((Fiber *)op);
}

static PyObject *
fiber_resume(PyObject *op, PyObject *Py_UNUSED(wait))
{
    if (fiber_run((Fiber *)op) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *
fiber_cancel(PyObject *op, PyObject *Py_UNUSED(unused))
{
    Fiber *self = (Fiber *)op;
    PyObject *waiting = self->waiting;
    if (self->wait.state != PENDING)
        Py_RETURN_NONE;
    wait_forget(&self->wait);
    self->waiting = NULL; /* its reference is ours now */
    if (waiting == NULL)
        Py_RETURN_NONE;
    int failed = call0(waiting, s_detach) < 0 || call0(waiting, s_cancel) < 0
        || call0(self->coroutine, s_close) < 0;
    Py_DECREF(waiting);
    if (failed)
        return NULL;
    Py_RETURN_NONE;
}

static int
fiber_traverse(PyObject *op, visitproc visit, void *arg)
{
    Fiber *self = (Fiber *)op;
    Py_VISIT(self->coroutine);
    Py_VISIT(self->waiting);
    return wait_traverse(op, visit, arg);
}

static int
fiber_clear(PyObject *op)
{
    Fiber *self = (Fiber *)op;
    Py_CLEAR(self->coroutine);
    Py_CLEAR(self->waiting);
    return wait_clear(op);
}

DEALLOC(fiber_dealloc, fiber_clear)

static PyMethodDef fiber_methods[] = {
    {"resume", fiber_resume, METH_O, NULL},
    {"cancel", fiber_cancel, METH_NOARGS, NULL},
    {NULL},
};

static PyTypeObject FiberType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "router_fn._hot.Fiber",
    .tp_basicsize = sizeof(Fiber),
    .tp_base = &WaitType,
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .tp_new = PyType_GenericNew,
    .tp_init = fiber_init,
    .tp_traverse = fiber_traverse,
    .tp_clear = fiber_clear,
    .tp_dealloc = fiber_dealloc,
    .tp_methods = fiber_methods,
};

/* --- Reply ----------------------------------------------------------------------------------- */

static int
reply_init(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"status", "body", "head", "made_json", NULL};
    Reply *self = (Reply *)op;
    PyObject *status, *body, *head = NULL;
    int made_json = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|Op:Reply", names, &status, &body, &head, &made_json))
        return -1;
    REPLACE(self->status, Py_NewRef(status));
    REPLACE(self->body, Py_NewRef(body));
    REPLACE(self->head, Py_XNewRef(head));
    self->made_json = (char)made_json;
    return 0;
}

static int
reply_traverse(PyObject *op, visitproc visit, void *arg)
{
    Reply *self = (Reply *)op;
    Py_VISIT(self->status);
    Py_VISIT(self->body);
    Py_VISIT(self->head);
    return 0;
}

static int
reply_clear(PyObject *op)
{
    Reply *self = (Reply *)op;
    Py_CLEAR(self->status);
    Py_CLEAR(self->body);
    Py_CLEAR(self->head);
    return 0;
}

DEALLOC(reply_dealloc, reply_clear)

static PyObject *
reply_good(PyObject *op, void *Py_UNUSED(closure))
{
    PyObject *status = ((Reply *)op)->status;
    long number = status == NULL ? 0 : PyLong_AsLong(status);
    if (number == -1 && PyErr_Occurred())
        return NULL;
    return PyBool_FromLong(200 <= number && number < 300);
}

static PyMemberDef reply_members[] = {
    OBJECT(Reply, "status", status),
    OBJECT(Reply, "body", body),
    OBJECT(Reply, "head", head),
    FLAG(Reply, "made_json", made_json),
    {NULL},
};

static PyGetSetDef reply_properties[] = {
    {"good", reply_good, NULL, NULL, NULL},
    {NULL},
};

static PyTypeObject ReplyType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "router_fn._hot.Reply",
    .tp_basicsize = sizeof(Reply),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = PyType_GenericNew,
    .tp_init = reply_init,
    .tp_traverse = reply_traverse,
    .tp_clear = reply_clear,
    .tp_dealloc = reply_dealloc,
    .tp_members = reply_members,
    .tp_getset = reply_properties,
};

/* --- UpstreamCore ---------------------------------------------------------------------------- */

static int
upstream_init(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"origin", "pool", "idle", "waiting", "known", NULL};
    Upstream *self = (Upstream *)op;
    PyObject *origin, *pool, *idle, *waiting, *known;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOO!OO!:UpstreamCore", names, &origin, &pool,
                                     &PyList_Type, &idle, &waiting, &PyDict_Type, &known))
        return -1;
    PyObject *buffer = PyBytes_FromStringAndSize(NULL, 0);
    if (buffer == NULL)
        return -1;
    REPLACE(self->buffer, buffer);
    REPLACE(self->origin, Py_NewRef(origin));
    REPLACE(self->pool, Py_NewRef(pool));
    REPLACE(self->idle, Py_NewRef(idle));
    REPLACE(self->waiting, Py_NewRef(waiting));
    REPLACE(self->known, Py_NewRef(known));
    self->alive = self->fresh = 1;
    return 0;
}

static int
upstream_traverse(PyObject *op, visitproc visit, void *arg)
{
    Upstream *self = (Upstream *)op;
    Py_VISIT(self->origin);
    Py_VISIT(self->pool);
    Py_VISIT(self->idle);
    Py_VISIT(self->waiting);
    Py_VISIT(self->known);
    Py_VISIT(self->write);
    Py_VISIT(self->transport);
    Py_VISIT(self->receiver);
    Py_VISIT(self->head);
    Py_VISIT(self->buffer);
    Py_VISIT(self->idle_since);
    return 0;
}

static int
upstream_clear(PyObject *op)
{
    Upstream *self = (Upstream *)op;
    Py_CLEAR(self->origin);
    Py_CLEAR(self->pool);
    Py_CLEAR(self->idle);
    Py_CLEAR(self->waiting);
    Py_CLEAR(self->known);
    Py_CLEAR(self->write);
    Py_CLEAR(self->transport);
    Py_CLEAR(self->receiver);
    Py_CLEAR(self->head);
    Py_CLEAR(self->buffer);
    Py_CLEAR(self->idle_since);
    return 0;
}

DEALLOC(upstream_dealloc, upstream_clear)

#define LARGE 65536 /* from here on two buffers for the kernel instead of one more copy for us */

static int
upstream_send(Upstream *self, PyObject *receiver, PyObject *head, PyObject *body)
{
    if (!PyBytes_Check(head) || !PyBytes_Check(body)) {
        PyErr_SetString(PyExc_TypeError, "head and body must be bytes");
        return -1;
    }
    REPLACE(self->receiver, Py_NewRef(receiver));
    if (PyBytes_GET_SIZE(body) >= LARGE && GIVEN(self->transport)) {
        PyObject *both = PyTuple_Pack(2, head, body);
        if (both == NULL)
            return -1;
        int failed = call1(self->transport, s_writelines, both);
        Py_DECREF(both);
        return failed;
    }
    PyObject *data = join_bytes(head, body);
    if (data == NULL)
        return -1;
    PyObject *write = Py_XNewRef(self->write);
    int failed = GIVEN(write) ? finish_call(PyObject_CallOneArg(write, data)) : 0;
    Py_XDECREF(write);
    Py_DECREF(data);
    return failed;
}

static PyObject *
upstream_begin(PyObject *op, PyObject *const *args, Py_ssize_t count)
{
    if (count != 3) {
        PyErr_SetString(PyExc_TypeError, "begin() takes a receiver, a head and a body");
        return NULL;
    }
    if (upstream_send((Upstream *)op, args[0], args[1], args[2]) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static int
note_answer(Recent *place, PyObject *head)
{
    place->length = get_size(head, s_length);
    place->status = place->length == -1 && PyErr_Occurred() ? NULL : PyObject_GetAttr(head, s_status);
    return place->status == NULL ? -1 : 0;
}

/* An answer is complete: back into the pool, or on to the next in line. */
static int
upstream_give_back(Upstream *self)
{
    Py_ssize_t waiting = PyObject_Size(self->waiting);
    if (waiting != 0)
        return waiting < 0 ? -1 : call1(self->origin, s_release, (PyObject *)self);
    PyObject *now = PyObject_GetAttr(self->pool, s_now);
    if (now == NULL)
        return -1;
    REPLACE(self->idle_since, now);
    if (PyObject_SetAttr(self->origin, s_last_answer, now) < 0)
        return -1;
    return PyList_Append(self->idle, (PyObject *)self);
}

static PyObject *
upstream_data_received(PyObject *op, PyObject *data)
{
    Upstream *self = (Upstream *)op;
    if (!PyBytes_CheckExact(data)) {
        PyErr_SetString(PyExc_TypeError, "data must be bytes");
        return NULL;
    }
    if (!GIVEN(self->receiver) || GIVEN(self->head) || !is_empty_bytes(self->buffer))
        return PyObject_CallMethodOneArg(op, s_feed, data);
    Recent *known = recognise(&recent, &self->last, self->known, data, note_answer);
    if (known == NULL && PyErr_Occurred())
        return NULL;
    Py_ssize_t end = known == NULL ? 0 : PyBytes_GET_SIZE(known->block);
    if (known == NULL || known->length != PyBytes_GET_SIZE(data) - end)
        return PyObject_CallMethodOneArg(op, s_feed, data);
    /* The one-packet path: a plain head seen before, and exactly its body. */
    PyObject *result = NULL;
    PyObject *body = PyBytes_FromStringAndSize(PyBytes_AS_STRING(data) + end, known->length);
    if (body == NULL)
        return NULL;
    PyObject *receiver = self->receiver;
    self->receiver = NULL; /* its reference is ours now */
    self->fresh = 0;
    PyObject *head = Py_NewRef(known->head), *status = Py_NewRef(known->status);
    if (upstream_give_back(self) == 0) {
        PyObject *arguments[] = {receiver, status, body, head};
        result = PyObject_VectorcallMethod(s_replied, arguments, 4, NULL);
    }
    Py_DECREF(status);
    Py_DECREF(head);
    Py_DECREF(receiver);
    Py_DECREF(body);
    return result;
}

static PyMethodDef upstream_methods[] = {
    {"begin", (PyCFunction)(void (*)(void))upstream_begin, METH_FASTCALL, NULL},
    {"data_received", upstream_data_received, METH_O, NULL},
    {NULL},
};

static PyMemberDef upstream_members[] = {
    OBJECT(Upstream, "_origin", origin),
    OBJECT(Upstream, "_pool", pool),
    OBJECT(Upstream, "_transport", transport),
    OBJECT(Upstream, "_receiver", receiver),
    OBJECT(Upstream, "_head", head),
    OBJECT(Upstream, "_buffer", buffer),
    OBJECT(Upstream, "write", write),
    OBJECT(Upstream, "idle_since", idle_since),
    FLAG(Upstream, "alive", alive),
    FLAG(Upstream, "_fresh", fresh),
    {NULL},
};

static PyTypeObject UpstreamType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "router_fn._hot.UpstreamCore",
    .tp_basicsize = sizeof(Upstream),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .tp_new = PyType_GenericNew,
    .tp_init = upstream_init,
    .tp_traverse = upstream_traverse,
    .tp_clear = upstream_clear,
    .tp_dealloc = upstream_dealloc,
    .tp_methods = upstream_methods,
    .tp_members = upstream_members,
};

/* --- CallCore -------------------------------------------------------------------------------- */

static int
call_init(PyObject *op, PyObject *args, PyObject *kwargs)
{
    Call *self = (Call *)op;
    PyObject *target, *incoming, *body;
    if (has_keywords(kwargs) || !PyArg_UnpackTuple(args, "CallCore", 3, 3, &target, &incoming, &body))
        return -1;
    if (!PyBytes_Check(body)) {
        PyErr_SetString(PyExc_TypeError, "a call's body must be bytes");
        return -1;
    }
    REPLACE(self->target, Py_NewRef(target));
    REPLACE(self->incoming, Py_NewRef(incoming));
    REPLACE(self->body, Py_NewRef(body));
    return 0;
}

static int
call_traverse(PyObject *op, visitproc visit, void *arg)
{
    Call *self = (Call *)op;
    Py_VISIT(self->target);
    Py_VISIT(self->incoming);
    Py_VISIT(self->body);
    Py_VISIT(self->extra_head);
    Py_VISIT(self->on_sent);
    Py_VISIT(self->message);
    Py_VISIT(self->stream_to);
    Py_VISIT(self->connection);
    Py_VISIT(self->timer);
    return wait_traverse(op, visit, arg);
}

static int
call_clear(PyObject *op)
{
    Call *self = (Call *)op;
    Py_CLEAR(self->target);
    Py_CLEAR(self->incoming);
    Py_CLEAR(self->body);
    Py_CLEAR(self->extra_head);
    Py_CLEAR(self->on_sent);
    Py_CLEAR(self->message);
    Py_CLEAR(self->stream_to);
    Py_CLEAR(self->connection);
    Py_CLEAR(self->timer);
    return wait_clear(op);
}

DEALLOC(call_dealloc, call_clear)

/* The request head for a call: kept, or made by the target. */
static PyObject *
call_head(Call *self)
{
    PyObject *head = NULL, *length = NULL, *key = NULL;
    PyObject *heads = PyObject_GetAttr(self->incoming, s_heads);
    if (heads == NULL || !(length = PyLong_FromSsize_t(PyBytes_GET_SIZE(self->body)))
        || !(key = PyTuple_Pack(2, self->target, length)))
        goto done;
    head = Py_XNewRef(PyDict_Check(heads) ? PyDict_GetItemWithError(heads, key) : NULL);
    if (head == NULL && !PyErr_Occurred()) {
        PyObject *arguments[] = {self->target, self->incoming, length};
        head = PyObject_VectorcallMethod(s_head, arguments, 3, NULL);
    }
done:
    Py_XDECREF(heads);
    Py_XDECREF(length);
    Py_XDECREF(key);
    return head;
}

static PyObject *
call_transmit(PyObject *op, PyObject *connection)
{
    Call *self = (Call *)op;
    REPLACE(self->connection, Py_NewRef(connection));
    if (GIVEN(self->message) || !is_empty_bytes(self->extra_head)) {
        if (call1(op, s_transmit_unusual, connection) < 0)
            return NULL;
    }
    else {
        PyObject *head = call_head(self);
        if (head == NULL)
            return NULL;
        int failed;
        if (PyObject_TypeCheck(connection, &UpstreamType))
            failed = upstream_send((Upstream *)connection, op, head, self->body);
        else {
            PyObject *arguments[] = {connection, op, head, self->body};
            failed = finish_call(PyObject_VectorcallMethod(s_begin, arguments, 4, NULL));
        }
        Py_DECREF(head);
        if (failed < 0)
            return NULL;
    }
    PyObject *on_sent = Py_XNewRef(self->on_sent);
    int failed = GIVEN(on_sent) ? finish_call(PyObject_CallNoArgs(on_sent)) : 0;
    Py_XDECREF(on_sent);
    if (failed < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* The last of a list of upstream connections, taken out; NULL without an exception when it is
 * empty. */
static PyObject *
pop_last(PyObject *list)
{
    Py_ssize_t last = PyList_GET_SIZE(list) - 1;
    if (last < 0)
        return NULL;
    PyObject *item = Py_NewRef(PyList_GET_ITEM(list, last));
    if (PyList_SetSlice(list, last, last + 1, NULL) < 0)
        Py_CLEAR(item);
    return item;
}

static int
call_start(Call *self)
{
    PyObject *op = (PyObject *)self, *connection;
    PyObject *idle = PyObject_GetAttr(self->target, s_idle);
    if (idle == NULL)
        return -1;
    if (!PyList_Check(idle)) {
        Py_DECREF(idle);
        PyErr_SetString(PyExc_TypeError, "a target's idle connections must be a list");
        return -1;
    }
    while ((connection = pop_last(idle)) != NULL) {
        if (PyObject_TypeCheck(connection, &UpstreamType) && ((Upstream *)connection)->alive) {
            int failed = call1(op, s_transmit, connection);
            Py_DECREF(connection);
            Py_DECREF(idle);
            return failed;
        }
        Py_DECREF(connection);
    }
    Py_DECREF(idle);
    if (PyErr_Occurred())
        return -1;
    PyObject *origin = PyObject_GetAttr(self->target, s_origin);
    if (origin == NULL)
        return -1;
    int failed = call1(origin, s_send, op);
    Py_DECREF(origin);
    return failed;
}

static PyObject *
call_begin(PyObject *op, PyObject *const *args, Py_ssize_t count)
{
    Call *self = (Call *)op;
    if (count > 2) {
        PyErr_SetString(PyExc_TypeError, "begin() takes a time limit and an exchange");
        return NULL;
    }
    REPLACE(self->stream_to, count > 1 ? Py_NewRef(args[1]) : NULL);
    PyObject *limit = count > 0 && args[0] != Py_None ? Py_NewRef(args[0])
                                                      : PyObject_GetAttr(self->target, s_timeout_s);
    if (limit == NULL)
        return NULL;
    int failed = limit != Py_None && call1(op, s_start_timer, limit) < 0;
    Py_DECREF(limit);
    if (failed || call_start(self) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *
call_replied(PyObject *op, PyObject *const *args, Py_ssize_t count)
{
    Call *self = (Call *)op;
    if (count != 3) {
        PyErr_SetString(PyExc_TypeError, "replied() takes a status, a body and a head");
        return NULL;
    }
    Py_CLEAR(self->connection);
    long status = PyLong_AsLong(args[0]);
    if (status == -1 && PyErr_Occurred())
        return NULL;
    if (status >= 300 && status < 400) {
        PyObject *arguments[] = {op, args[0], args[2]};
        PyObject *followed = PyObject_VectorcallMethod(s_redirect, arguments, 3, NULL);
        int truth = followed == NULL ? -1 : PyObject_IsTrue(followed);
        Py_XDECREF(followed);
        if (truth < 0)
            return NULL;
        if (truth)
            Py_RETURN_NONE;
    }
    if (GIVEN(self->timer)) {
        PyObject *timer = Py_NewRef(self->timer);
        int failed = call0(timer, s_cancel);
        Py_DECREF(timer);
        if (failed < 0)
            return NULL;
    }
    PyObject *arguments[] = {op, args[0], args[1], args[2]};
    return PyObject_VectorcallMethod(s_settle, arguments, 4, NULL);
}

static PyObject *
call_settle(PyObject *op, PyObject *const *args, Py_ssize_t count)
{
    if (count != 3) {
        PyErr_SetString(PyExc_TypeError, "settle() takes a status, a body and a head");
        return NULL;
    }
    Reply *reply = (Reply *)ReplyType.tp_alloc(&ReplyType, 0);
    if (reply == NULL)
        return NULL;
    reply->status = Py_NewRef(args[0]);
    reply->body = Py_NewRef(args[1]);
    reply->head = Py_NewRef(args[2]);
    PyObject *result = PyObject_CallMethodOneArg(op, s_resolve, (PyObject *)reply);
    Py_DECREF(reply);
    return result;
}

static PyMethodDef call_methods[] = {
    {"begin", (PyCFunction)(void (*)(void))call_begin, METH_FASTCALL, NULL},
    {"transmit", call_transmit, METH_O, NULL},
    {"replied", (PyCFunction)(void (*)(void))call_replied, METH_FASTCALL, NULL},
    {"settle", (PyCFunction)(void (*)(void))call_settle, METH_FASTCALL, NULL},
    {NULL},
};

static PyMemberDef call_members[] = {
    OBJECT(Call, "target", target),
    OBJECT(Call, "incoming", incoming),
    OBJECT(Call, "body", body),
    OBJECT(Call, "extra_head", extra_head),
    OBJECT(Call, "on_sent", on_sent),
    OBJECT(Call, "_message", message),
    OBJECT(Call, "_stream_to", stream_to),
    OBJECT(Call, "_connection", connection),
    OBJECT(Call, "_timer", timer),
    FLAG(Call, "cancelled", cancelled),
    {NULL},
};

static PyTypeObject CallType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "router_fn._hot.CallCore",
    .tp_basicsize = sizeof(Call),
    .tp_base = &WaitType,
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .tp_new = PyType_GenericNew,
    .tp_init = call_init,
    .tp_traverse = call_traverse,
    .tp_clear = call_clear,
    .tp_dealloc = call_dealloc,
    .tp_methods = call_methods,
    .tp_members = call_members,
};

/* --- the module ------------------------------------------------------------------------------ */

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "router_fn._hot",
    .m_doc = "C twins of the router's hot path; see functions.wire.native.",
    .m_size = -1,
};

static const struct {
    PyObject **place;
    const char *name;
} interned[] = {
    {&s_attach, "attach"},
    {&s_begin, "begin"},
    {&s_cancel, "cancel"},
    {&s_close, "close"},
    {&s_detach, "detach"},
    {&s_feed, "_feed"},
    {&s_head, "head"},
    {&s_heads, "heads"},
    {&s_idle, "idle"},
    {&s_last_answer, "last_answer"},
    {&s_length, "length"},
    {&s_now, "now"},
    {&s_origin, "origin"},
    {&s_redirect, "_redirect"},
    {&s_release, "release"},
    {&s_replied, "replied"},
    {&s_resolve, "resolve"},
    {&s_resume, "resume"},
    {&s_send, "send"},
    {&s_settle, "settle"},
    {&s_start_timer, "_start_timer"},
    {&s_status, "status"},
    {&s_timeout_s, "timeout_s"},
    {&s_transmit, "transmit"},
    {&s_transmit_unusual, "_transmit_unusual"},
    {&s_writelines, "writelines"},
};

PyMODINIT_FUNC
PyInit__hot(void)
{
    static PyTypeObject *types[] = {&WaitType, &FiberType, &ReplyType, &UpstreamType, &CallType, NULL};
    for (size_t i = 0; i < sizeof interned / sizeof *interned; i++) {
        *interned[i].place = PyUnicode_InternFromString(interned[i].name);
        if (*interned[i].place == NULL)
            return NULL;
    }
    return make_module(&definition, types);
}
