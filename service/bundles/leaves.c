/* The leaves that requests end in, and the sums of their values: what `compiled_scorer.py` says with numpy, in the same order.

   Rows are written pattern by pattern, a column for each request, so that requests that are scored together share one pass over
   the patterns. Where this was not built, numpy does the same work in four times the time. */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>
#include <stdint.h>

#define MOST 16 /* requests at once: what they need stays within a core's cache */

#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && __GNUC__ >= 12 && !defined(__clang__)
#define WIDE __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define WIDE
#endif
#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline))
#define LOWEST(bits) __builtin_ctzll(bits)
#else
#define INLINE static inline
static inline int LOWEST(uint64_t bits)
{
    int place = 0;
    for (; !(bits & 1); bits >>= 1) place++;
    return place;
}
#endif

/* How many edges are below a value: `edges` ascend. */
INLINE Py_ssize_t below(const float *edges, Py_ssize_t count, float value)
{
    Py_ssize_t first = 0;
    while (count > 0) {
        Py_ssize_t half = count / 2;
        if (edges[first + half] < value) {
            first += half + 1;
            count -= half + 1;
        } else {
            count = half;
        }
    }
    return first;
}

/* As numpy adds up a row, so that both say the same (pairwise summation: Higham 1993). */
static double pairwise(const double *values, Py_ssize_t count)
{
    if (count < 8) {
        double sum = 0.0;
        for (Py_ssize_t i = 0; i < count; i++) sum += values[i];
        return sum;
    }
    if (count <= 128) {
        double part[8];
        Py_ssize_t i = 8;
        for (int j = 0; j < 8; j++) part[j] = values[j];
        for (; i < count - count % 8; i += 8)
            for (int j = 0; j < 8; j++) part[j] += values[i + j];
        double sum = ((part[0] + part[1]) + (part[2] + part[3])) + ((part[4] + part[5]) + (part[6] + part[7]));
        for (; i < count; i++) sum += values[i];
        return sum;
    }
    Py_ssize_t half = count / 2;
    half -= half % 8;
    return pairwise(values, half) + pairwise(values + half, count - half);
}

typedef struct {
    const float *requests; /* (rows, wide) */
    Py_ssize_t rows, wide;
    const int32_t *columns, *starts; /* of `asked` inputs: the column of a request, and where its edges begin */
    Py_ssize_t asked;
    const float *edges;
    const void *table; /* (edges + asked, trees): what an answer leaves of each tree, a word each */
    Py_ssize_t trees;
    const int32_t *tree; /* of each of `patterns` */
    const void *bits;    /* and what its actions' answers leave of it */
    Py_ssize_t patterns;
    const double *leaves; /* (trees, width) */
    Py_ssize_t width;
    double *values; /* (patterns, rows): the leaf's value */
} Work;

/* `left` and `mine` are the caller's: (trees, MOST) and (trees,). */
#define DEFINE(WORD)                                                                                                           \
    WIDE static void values_##WORD(const Work *work, WORD##_t *left, WORD##_t *mine)                                           \
    {                                                                                                                          \
        const WORD##_t *table = work->table, *bits = work->bits;                                                               \
        const Py_ssize_t trees = work->trees, rows = work->rows;                                                               \
        for (Py_ssize_t row = 0; row < rows; row++) {                                                                          \
            const float *request = work->requests + row * work->wide;                                                          \
            for (Py_ssize_t t = 0; t < trees; t++) mine[t] = (WORD##_t)~(WORD##_t)0;                                           \
            for (Py_ssize_t input = 0; input < work->asked; input++) {                                                         \
                const float value = request[work->columns[input]];                                                             \
                const Py_ssize_t begin = work->starts[input], count = work->starts[input + 1] - begin;                         \
                const Py_ssize_t place = value != value ? count : below(work->edges + begin, count, value);                    \
                const WORD##_t *answer = table + (begin + input + place) * trees;                                              \
                for (Py_ssize_t t = 0; t < trees; t++) mine[t] &= answer[t];                                                   \
            }                                                                                                                  \
            for (Py_ssize_t t = 0; t < trees; t++) left[t * MOST + row] = mine[t];                                             \
        }                                                                                                                      \
        for (Py_ssize_t pattern = 0; pattern < work->patterns; pattern++) {                                                    \
            const Py_ssize_t t = work->tree[pattern];                                                                          \
            const WORD##_t own = bits[pattern], *there = left + t * MOST;                                                      \
            const double *leaves = work->leaves + t * work->width;                                                             \
            double *told = work->values + pattern * rows;                                                                      \
            for (Py_ssize_t row = 0; row < rows; row++) {                                                                      \
                const uint64_t alive = there[row] & own;                                                                       \
                told[row] = leaves[alive ? LOWEST(alive) : 0];                                                                 \
            }                                                                                                                  \
        }                                                                                                                      \
    }
DEFINE(uint8)
DEFINE(uint16)
DEFINE(uint32)
DEFINE(uint64)

INLINE void add(const double *values, const int32_t *places, Py_ssize_t terms, Py_ssize_t sums, double *out, const Py_ssize_t rows)
{
    for (Py_ssize_t sum = 0; sum < sums; sum++, places += terms, out += rows) {
        double all[MOST];
        for (Py_ssize_t row = 0; row < rows; row++) all[row] = values[places[0] * rows + row];
        for (Py_ssize_t term = 1; term < terms; term++)
            for (Py_ssize_t row = 0; row < rows; row++) all[row] += values[places[term] * rows + row];
        for (Py_ssize_t row = 0; row < rows; row++) out[row] = all[row];
    }
}

WIDE static void add_all(
    const double *values, const int32_t *places, Py_ssize_t terms, Py_ssize_t sums, double *out, Py_ssize_t rows)
{
    switch (rows) { /* a width that is known beforehand is a few wide registers */
    case MOST: add(values, places, terms, sums, out, MOST); break;
    case 8: add(values, places, terms, sums, out, 8); break;
    case 4: add(values, places, terms, sums, out, 4); break;
    case 1: add(values, places, terms, sums, out, 1); break;
    default: add(values, places, terms, sums, out, rows);
    }
}

enum { REQUESTS, COLUMNS, STARTS, EDGES, TABLE, TREE, BITS, LEAVES, ALIKE, VALUES, CONSTANT, BUFFERS };

static void release(Py_buffer *buffers, int count)
{
    for (int i = 0; i < count; i++) PyBuffer_Release(&buffers[i]);
}

static PyObject *wrong(const char *expected)
{
    PyErr_Format(PyExc_ValueError, "Expected %s", expected);
    return NULL;
}

/* Sizes are checked; that places lie inside is promised by whoever worked them out. */
static PyObject *values(PyObject *self, PyObject *args)
{
    Py_buffer b[BUFFERS];
    Py_ssize_t rows, trees, word;
    (void)self;
    if (!PyArg_ParseTuple(args, "nnny*y*y*y*y*y*y*y*y*w*w*", &rows, &trees, &word, &b[REQUESTS], &b[COLUMNS], &b[STARTS],
                          &b[EDGES], &b[TABLE], &b[TREE], &b[BITS], &b[LEAVES], &b[ALIKE], &b[VALUES], &b[CONSTANT]))
        return NULL;
    const Py_ssize_t asked = b[COLUMNS].len / 4, patterns = b[TREE].len / 4, alike = b[ALIKE].len / 4;
    const Py_ssize_t edges = b[EDGES].len / 4;
    void *scratch = NULL;
    PyObject *told = NULL;
    if (rows < 1 || rows > MOST || trees < 1 || b[REQUESTS].len % (4 * rows) || b[STARTS].len != 4 * (asked + 1) ||
        b[TABLE].len != (edges + asked) * trees * word || b[BITS].len != patterns * word || b[LEAVES].len % (8 * trees) ||
        b[VALUES].len < 8 * patterns * rows || b[CONSTANT].len != 8 * rows) {
        wrong("1 to 16 requests and arrays of sizes that fit each other");
        goto end;
    }
    const int32_t *columns = b[COLUMNS].buf, *starts = b[STARTS].buf;
    int inside = starts[0] == 0 && starts[asked] == edges;
    for (Py_ssize_t i = 0; i < asked; i++)
        inside &= columns[i] >= 0 && columns[i] < b[REQUESTS].len / (4 * rows) && starts[i] <= starts[i + 1];
    if (!inside) {
        wrong("columns of the requests, and edges in order");
        goto end;
    }
    const Py_ssize_t line = alike > trees ? alike : trees;
    scratch = PyMem_Malloc((size_t)(trees * MOST * 8 + line * 8));
    if (scratch == NULL) {
        PyErr_NoMemory();
        goto end;
    }
    const Work work = {b[REQUESTS].buf, rows, b[REQUESTS].len / (4 * rows), b[COLUMNS].buf, b[STARTS].buf, asked, b[EDGES].buf,
                       b[TABLE].buf, trees, b[TREE].buf, b[BITS].buf, patterns, b[LEAVES].buf, b[LEAVES].len / (8 * trees),
                       b[VALUES].buf};
    void *mine = (char *)scratch + trees * MOST * 8;
    switch (word) {
    case 1: values_uint8(&work, scratch, mine); break;
    case 2: values_uint16(&work, scratch, mine); break;
    case 4: values_uint32(&work, scratch, mine); break;
    case 8: values_uint64(&work, scratch, mine); break;
    default: wrong("words of 1, 2, 4 or 8 bytes"); goto end;
    }
    double *gathered = mine, *constant = b[CONSTANT].buf;
    const int32_t *places = b[ALIKE].buf;
    for (Py_ssize_t row = 0; row < rows; row++) {
        for (Py_ssize_t i = 0; i < alike; i++) gathered[i] = work.values[places[i] * rows + row];
        constant[row] = pairwise(gathered, alike);
    }
    Py_INCREF(Py_None);
    told = Py_None;
end:
    PyMem_Free(scratch);
    release(b, BUFFERS);
    return told;
}

static PyObject *sums(PyObject *self, PyObject *args)
{
    Py_buffer b[3];
    Py_ssize_t rows, terms;
    (void)self;
    if (!PyArg_ParseTuple(args, "nny*y*w*", &rows, &terms, &b[0], &b[1], &b[2])) return NULL;
    PyObject *told = NULL;
    if (rows < 1 || rows > MOST || terms < 1 || b[1].len % (4 * terms) || b[2].len < 8 * rows * (b[1].len / (4 * terms))) {
        wrong("1 to 16 requests and arrays of sizes that fit each other");
    } else {
        add_all(b[0].buf, b[1].buf, terms, b[1].len / (4 * terms), b[2].buf, rows);
        Py_INCREF(Py_None);
        told = Py_None;
    }
    release(b, 3);
    return told;
}

static PyMethodDef methods[] = {
    {"values", values, METH_VARARGS,
     "values(rows, trees, word, requests, columns, starts, edges, table, tree, bits, leaves, alike, values, constant)\n\n"
     "Write the leaf value of each pattern, and the sum of those that all actions share."},
    {"sums", sums, METH_VARARGS, "sums(rows, terms, values, places, out)\n\nAdd up the rows of `values` that `places` names."},
    {NULL, NULL, 0, NULL},
};

/* What the functions take: Python looks whether it is what it knows. */
static int begin(PyObject *module) { return PyModule_AddIntConstant(module, "INTERFACE", 1); }

static PyModuleDef_Slot slots[] = {{Py_mod_exec, begin}, {0, NULL}};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_leaves", "Leaves of trees, and their sums.", 0, methods, slots, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__leaves(void) { return PyModuleDef_Init(&module); }
