/* Histories of contacts in terms of a catalog, and what caps leave of its units: what `past.py` says in numpy, in one pass.

   numpy takes some forty calls for it, most of which pass over all entries, and a request that comes alone pays for each call. */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>
#include <stdint.h>

#define SIZE 16 /* bytes of an entry, little-endian: at, action, decision, placement, type */
#define SERVED 1
#define CANCELLED 2
#define IMPRESSION 3
#define NO_UNIT (-1)

enum count { DECISIONS, OUTCOMES, IMPRESSIONS, OF_TYPE };

static uint32_t four(const unsigned char *at)
{
    return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static uint16_t two(const unsigned char *at) { return (uint16_t)(at[0] | at[1] << 8); }

/* Hashes that are known, in their order, and the place of each; of what is not there: one beyond the last. `starts`: where those
   begin whose first bits are so many. As many bits as there are hashes leave one or two to look at; halving took 30 ns more. */
struct names {
    const int64_t *sorted;
    const Py_ssize_t *places, *starts;
    size_t known;
    int shift;
};

/* Whether they fit together. */
static int names_of(const Py_buffer *sorted, const Py_buffer *places, const Py_buffer *starts, struct names *out)
{
    const Py_ssize_t word = sizeof(Py_ssize_t), known = places->len / word, buckets = starts->len / word;
    int bits = 0;
    while (bits < 31 && ((Py_ssize_t)1 << bits) < buckets) bits++;
    *out = (struct names){sorted->buf, places->buf, starts->buf, (size_t)known, 32 - bits};
    return sorted->len == 8 * known && bits > 0 && ((Py_ssize_t)1 << bits) == buckets;
}

static Py_ssize_t position(uint32_t hash, const struct names *names)
{
    size_t i = (size_t)names->starts[hash >> names->shift]; /* one that lies outside is beyond the last */
    while (i < names->known && names->sorted[i] < hash) i++;
    return i < names->known && names->sorted[i] == hash ? names->places[i] : (Py_ssize_t)names->known;
}

/* Whether a history holds an entry of this type, of the same action and decision, and not older than `since`. */
static int holds(const unsigned char *history, Py_ssize_t entries, const unsigned char *like, int type, uint32_t since)
{
    for (Py_ssize_t i = 0; i < entries; i++) {
        const unsigned char *entry = history + i * SIZE;
        if (two(entry + 14) == type && four(entry + 4) == four(like + 4) && four(entry + 8) == four(like + 8) && four(entry) >= since)
            return 1;
    }
    return 0;
}

static int has(const unsigned char *history, Py_ssize_t entries, int type)
{
    for (Py_ssize_t i = 0; i < entries; i++)
        if (two(history + i * SIZE + 14) == type) return 1;
    return 0;
}

/* read(histories, ats, actions, their places and starts, placements, their places and starts, reservation, row, age, action,
   placement, type, pending, served): fills what is told of each entry. With no room for placements, nothing is told of them. */
static PyObject *read_entries(PyObject *self, PyObject *args)
{
    PyObject *histories;
    Py_buffer in[7], out[7];
    struct names actions, placements;
    double reservation;
    (void)self;
    if (!PyArg_ParseTuple(args, "O!y*y*y*y*y*y*y*dw*w*w*w*w*w*w*", &PyList_Type, &histories, &in[0], &in[1], &in[2], &in[3], &in[4],
                          &in[5], &in[6], &reservation, &out[0], &out[1], &out[2], &out[3], &out[4], &out[5], &out[6]))
        return NULL;
    const Py_ssize_t requests = PyList_Size(histories), entries = out[5].len, word = sizeof(Py_ssize_t);
    const int is_told = out[3].len > 0;
    const double *ats = in[0].buf;
    Py_ssize_t *row = out[0].buf, *action = out[2].buf, *placement = out[3].buf;
    double *age = out[1].buf;
    uint16_t *type = out[4].buf;
    unsigned char *pending = out[5].buf, *served = out[6].buf;
    PyObject *told = NULL;
    Py_ssize_t k = 0;
    if (in[0].len != 8 * requests || !names_of(&in[1], &in[2], &in[3], &actions) || !names_of(&in[4], &in[5], &in[6], &placements) ||
        out[0].len != word * entries || out[1].len != 8 * entries || out[2].len != word * entries ||
        (is_told && out[3].len != word * entries) || out[4].len != 2 * entries || out[6].len != entries)
        goto wrong;
    for (Py_ssize_t r = 0; r < requests; r++) {
        PyObject *known = PyList_GetItem(histories, r); /* borrowed */
        if (known == Py_None) continue;
        if (!PyBytes_Check(known)) goto wrong;
        const unsigned char *history = (const unsigned char *)PyBytes_AsString(known);
        const Py_ssize_t size = PyBytes_Size(known) / SIZE;
        if (k + size > entries) goto wrong;
        const int cancelled = has(history, size, CANCELLED), shown = has(history, size, IMPRESSION);
        for (Py_ssize_t i = 0; i < size; i++, k++) {
            const unsigned char *entry = history + i * SIZE;
            row[k] = r;
            age[k] = ats[r] - (double)four(entry);
            action[k] = position(four(entry + 4), &actions);
            if (is_told) placement[k] = position((uint32_t)two(entry + 12) << 16, &placements);
            type[k] = two(entry + 14);
            served[k] = type[k] == SERVED && !(cancelled && holds(history, size, entry, CANCELLED, four(entry)));
            pending[k] = served[k] && age[k] < reservation && !(shown && holds(history, size, entry, IMPRESSION, 0));
        }
    }
    if (k != entries) goto wrong;
    Py_INCREF(Py_None);
    told = Py_None;
    goto end;
wrong:
    PyErr_SetString(PyExc_ValueError, "Expected histories, and as much room for each of their entries");
end:
    for (int i = 0; i < 7; i++) {
        PyBuffer_Release(&in[i]);
        PyBuffer_Release(&out[i]);
    }
    return told;
}

/* count(what, type, window, row, age, unit, type of each, pending, served, units, left): takes one from `left`, (requests, units),
   for each entry that counts. */
static PyObject *count(PyObject *self, PyObject *args)
{
    int what, wanted;
    double window;
    Py_ssize_t units;
    Py_buffer in[6], left; /* row, age, unit, type, pending, served */
    (void)self;
    if (!PyArg_ParseTuple(args, "iidy*y*y*y*y*y*nw*", &what, &wanted, &window, &in[0], &in[1], &in[2], &in[3], &in[4], &in[5], &units,
                          &left))
        return NULL;
    const Py_ssize_t entries = in[4].len, word = sizeof(Py_ssize_t);
    const Py_ssize_t *row = in[0].buf, *unit = in[2].buf;
    const double *age = in[1].buf;
    const uint16_t *type = in[3].buf;
    const unsigned char *pending = in[4].buf, *served = in[5].buf;
    int64_t *cells = left.buf;
    PyObject *told = NULL;
    if (in[0].len != word * entries || in[1].len != 8 * entries || in[2].len != word * entries || in[3].len != 2 * entries ||
        in[5].len != entries || units < 1)
        goto wrong;
    for (Py_ssize_t k = 0; k < entries; k++) {
        int counts = 0;
        switch (what) {
        case DECISIONS: counts = served[k]; break;
        case OUTCOMES: counts = type[k] >= IMPRESSION; break;
        case IMPRESSIONS: counts = type[k] == IMPRESSION || pending[k]; break;
        default: counts = type[k] == wanted;
        }
        if (!counts || !(age[k] < window) || unit[k] == NO_UNIT) continue;
        if (unit[k] < 0 || unit[k] >= units || row[k] < 0 || (row[k] * units + unit[k] + 1) * 8 > left.len) goto wrong;
        cells[row[k] * units + unit[k]]--;
    }
    Py_INCREF(Py_None);
    told = Py_None;
    goto end;
wrong:
    PyErr_SetString(PyExc_ValueError, "Expected as much of each entry, and a cell for its request and unit");
end:
    for (int i = 0; i < 6; i++) PyBuffer_Release(&in[i]);
    PyBuffer_Release(&left);
    return told;
}

static PyMethodDef methods[] = {
    {"read", read_entries, METH_VARARGS, "read(histories, ats, actions, places, starts, placements, places, starts, reservation, row, age, action, placement, type, pending, served)"},
    {"count", count, METH_VARARGS, "count(what, type, window, row, age, unit, types, pending, served, units, left)"},
    {NULL, NULL, 0, NULL},
};

/* What the functions take: Python looks whether it is what it knows. */
static int begin(PyObject *module) { return PyModule_AddIntConstant(module, "INTERFACE", 1); }

static PyModuleDef_Slot slots[] = {{Py_mod_exec, begin}, {0, NULL}};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_contacts", "Contacts in terms of a catalog, counted.", 0, methods, slots, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__contacts(void) { return PyModuleDef_Init(&module); }
