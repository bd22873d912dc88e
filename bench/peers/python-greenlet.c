/* Python's greenlet, from C: its C API, and functions in C as what its
 * greenlets run. It copies stacks, in place. Each switch takes arguments,
 * an empty tuple here, and returns an object.
 *
 * SPDX-License-Identifier: MIT */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <greenlet/greenlet.h>

#include "peer.h"

struct peer_co {
    PyGreenlet *greenlet;
    peer_body *body;
    void *data;
};

static PyGreenlet *peer_main;
static PyObject *no_arguments;
static char version[40] = "unknown";

static bool initialize(void) {
    if (Py_IsInitialized())
        return true;
    PyConfig config;
    PyConfig_InitPythonConfig(&config);
    config.install_signal_handlers = 0;
    /* Not the one that PATH has, which may be another. */
    PyStatus status =
        PyConfig_SetBytesString(&config, &config.program_name, PEER_PYTHON);
    if (!PyStatus_Exception(status))
        status = Py_InitializeFromConfig(&config);
    PyConfig_Clear(&config);
    return !PyStatus_Exception(status);
}

static const char *peer_version(void) {
    PyObject *module = NULL, *text = NULL;
    if (initialize())
        module = PyImport_ImportModule("greenlet");
    if (module)
        text = PyObject_GetAttrString(module, "__version__");
    if (text)
        snprintf(version, sizeof version, "%s", PyUnicode_AsUTF8(text));
    Py_XDECREF(text);
    Py_XDECREF(module);
    if (Py_IsInitialized())
        PyErr_Clear();
    return version;
}

static const char *peer_begin(void) {
    if (!initialize())
        return "Python cannot be initialized";
    PyGreenlet_Import();
    if (!_PyGreenlet_API)
        return "the module greenlet cannot be imported";
    peer_main = PyGreenlet_GetCurrent();
    no_arguments = PyTuple_New(0);
    return peer_main && no_arguments ? NULL : "no memory";
}

static PyObject *peer_entry(PyObject *capsule, PyObject *arguments) {
    (void)arguments;
    peer_co *self = PyCapsule_GetPointer(capsule, NULL);
    self->body(self, self->data);
    Py_RETURN_NONE;
}

static const char *peer_make(peer_co *co, peer_body *body, void *data,
                             size_t stack_bytes) {
    static PyMethodDef method = {"entry", peer_entry, METH_VARARGS, NULL};
    (void)stack_bytes; /* all run on the thread's stack */
    co->body = body;
    co->data = data;
    PyObject *capsule = PyCapsule_New(co, NULL, NULL);
    PyObject *run = capsule ? PyCFunction_New(&method, capsule) : NULL;
    co->greenlet = run ? PyGreenlet_New(run, NULL) : NULL;
    Py_XDECREF(run);
    Py_XDECREF(capsule);
    PyErr_Clear();
    return co->greenlet ? NULL : "PyGreenlet_New failed";
}

/* False once a GreenletExit arrives, with which a suspended one is dropped. */
static inline bool peer_switch(PyGreenlet *to) {
    PyObject *got = PyGreenlet_Switch(to, no_arguments, NULL);
    if (!got) {
        PyErr_Clear();
        return false;
    }
    Py_DECREF(got);
    return true;
}

static inline bool peer_resume(peer_co *co) {
    return peer_switch(co->greenlet);
}

static inline bool peer_yield(peer_co *self) {
    (void)self;
    return peer_switch(peer_main);
}

static inline bool peer_direct(peer_co *self, peer_co *to) {
    (void)self;
    return peer_switch(to->greenlet);
}

static void peer_drop(peer_co *co) { Py_CLEAR(co->greenlet); }

static size_t saved_bytes(PyGreenlet *greenlet) {
    PyObject *number =
        PyObject_GetAttrString((PyObject *)greenlet, "_stack_saved");
    size_t result = number ? PyLong_AsSize_t(number) : 0;
    Py_XDECREF(number);
    return result;
}
#define PEER_SAVED_BYTES(co) saved_bytes((co)->greenlet)

#include "workloads.h"
