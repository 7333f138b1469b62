/* Values of customers, from Redis and to the model: what `layout.py` and `vectors.py` say in Python, for what comes in every request.

   Whatever is not as it mostly is, a text where a number belongs or a value of another size, is left to Python, which knows what
   to say of it. */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>
#include <math.h>
#include <string.h>

#define NUMBER_SIZE 9 /* a tag, then a little-endian double */

static int is_little_endian(void)
{
    const int one = 1;
    char first;
    memcpy(&first, &one, 1);
    return first == 1;
}

/* numbers(tag, names, replies, values): whether each of the first replies was a number or nothing; those that are there are set. */
static PyObject *numbers(PyObject *self, PyObject *args)
{
    PyObject *names, *replies, *values;
    int tag;
    (void)self;
    if (!PyArg_ParseTuple(args, "iO!O!O!", &tag, &PyTuple_Type, &names, &PyList_Type, &replies, &PyDict_Type, &values)) return NULL;
    const Py_ssize_t count = PyTuple_Size(names);
    if (PyList_Size(replies) < count || !is_little_endian()) Py_RETURN_FALSE;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *reply = PyList_GetItem(replies, i); /* borrowed, as all that are got here */
        if (reply == Py_None) continue;
        if (!PyBytes_Check(reply)) Py_RETURN_FALSE;
        const Py_ssize_t size = PyBytes_Size(reply);
        const char *raw = PyBytes_AsString(reply);
        if (size == 0) continue;
        if (size != NUMBER_SIZE || raw[0] != (char)tag) Py_RETURN_FALSE;
        double number;
        memcpy(&number, raw + 1, sizeof number);
        if (isnan(number)) continue; /* missing */
        PyObject *value = PyFloat_FromDouble(number);
        if (value == NULL) return NULL;
        const int failed = PyDict_SetItem(values, PyTuple_GetItem(names, i), value);
        Py_DECREF(value);
        if (failed) return NULL;
    }
    Py_RETURN_TRUE;
}

/* A number as float32; what is missing or not finite is the default. 0: it is none. */
static int as_number(PyObject *value, float otherwise, float *out)
{
    double number;
    if (value == NULL || value == Py_None) {
        *out = otherwise;
        return 1;
    }
    if (Py_IS_TYPE(value, &PyFloat_Type))
        number = PyFloat_AsDouble(value);
    else if (Py_IS_TYPE(value, &PyLong_Type) || Py_IS_TYPE(value, &PyBool_Type))
        number = PyLong_AsDouble(value);
    else
        return 0;
    if (number == -1.0 && PyErr_Occurred()) {
        PyErr_Clear(); /* a whole number beyond what a float holds */
        return 0;
    }
    const float narrow = (float)number;
    *out = isfinite(narrow) ? narrow : otherwise;
    return 1;
}

/* A category's code: -1 where the vocabulary does not hold it. 0: it is no text. */
static int as_category(PyObject *value, PyObject *codes, float otherwise, float *out)
{
    if (value == NULL || value == Py_None) {
        *out = otherwise;
        return 1;
    }
    if (!Py_IS_TYPE(value, &PyUnicode_Type)) return 0;
    PyObject *code = PyDict_GetItemWithError(codes, value);
    *out = code == NULL ? -1.0f : (float)PyFloat_AsDouble(code);
    return !PyErr_Occurred();
}

/* encode(names, sources, codes, defaults, customers, contexts, out): whether all was as it should be; (rows, inputs) into `out`.

   Of each input: its name, 0 for the customer's or 1 for the context's, its codes or None for a number, and its default. */
static PyObject *encode(PyObject *self, PyObject *args)
{
    PyObject *names, *codes, *customers, *contexts;
    const char *sources;
    Py_ssize_t width;
    Py_buffer defaults, out;
    (void)self;
    if (!PyArg_ParseTuple(args, "O!y#O!y*O!O!w*", &PyTuple_Type, &names, &sources, &width, &PyTuple_Type, &codes, &defaults,
                          &PyList_Type, &customers, &PyList_Type, &contexts, &out))
        return NULL;
    const Py_ssize_t rows = PyList_Size(customers);
    const float *otherwise = defaults.buf;
    float *cell = out.buf;
    PyObject *told = NULL;
    if (PyTuple_Size(names) != width || PyTuple_Size(codes) != width || defaults.len != 4 * width ||
        out.len != 4 * width * rows || PyList_Size(contexts) != rows) {
        PyErr_SetString(PyExc_ValueError, "Expected as much of each input, and a row for each customer");
        goto end;
    }
    for (Py_ssize_t row = 0; row < rows; row++) {
        PyObject *told_of[2] = {PyList_GetItem(customers, row), PyList_GetItem(contexts, row)};
        if (!Py_IS_TYPE(told_of[0], &PyDict_Type) || !Py_IS_TYPE(told_of[1], &PyDict_Type)) goto other;
        for (Py_ssize_t i = 0; i < width; i++, cell++) {
            PyObject *vocabulary = PyTuple_GetItem(codes, i);
            PyObject *value = PyDict_GetItemWithError(told_of[sources[i] != 0], PyTuple_GetItem(names, i));
            if (value == NULL && PyErr_Occurred()) goto end;
            const int fits = vocabulary == Py_None ? as_number(value, otherwise[i], cell)
                                                   : as_category(value, vocabulary, otherwise[i], cell);
            if (PyErr_Occurred()) goto end;
            if (!fits) goto other;
        }
    }
    Py_INCREF(Py_True);
    told = Py_True;
    goto end;
other:
    Py_INCREF(Py_False);
    told = Py_False;
end:
    PyBuffer_Release(&defaults);
    PyBuffer_Release(&out);
    return told;
}

static PyMethodDef methods[] = {
    {"numbers", numbers, METH_VARARGS, "numbers(tag, names, replies, values) -> whether Python has nothing left to do"},
    {"encode", encode, METH_VARARGS, "encode(names, sources, codes, defaults, customers, contexts, out) -> whether Python has nothing left to do"},
    {NULL, NULL, 0, NULL},
};

/* What the functions take: Python looks whether it is what it knows. */
static int begin(PyObject *module) { return PyModule_AddIntConstant(module, "INTERFACE", 1); }

static PyModuleDef_Slot slots[] = {{Py_mod_exec, begin}, {0, NULL}};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_rows", "Values of customers, from Redis and to the model.", 0, methods, slots, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__rows(void) { return PyModuleDef_Init(&module); }
