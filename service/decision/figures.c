/* Figures as JSON, row by row: what msgspec writes of the same numbers, without an object for each of them.

   The digits are the fewest that name a double and no other, and of several such the nearest to it: R. Giulietti, "The Schubfach way
   to render doubles" (2020), whose names are used below. */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>
#include <stdint.h>
#include <string.h>

#define LONGEST 32 /* bytes of a number and its comma: a sign, 17 digits, and a point with five zeros or an exponent; 25 at most */
#define LOWEST (-292)
#define HIGHEST 324 /* powers of ten, of which a table tells the first 128 bits, rounded up: higher half, lower half */

typedef unsigned __int128 wide;

static int64_t floor_log10_pow2(int64_t e) { return (e * 1262611) >> 22; }
static int64_t floor_log10_three_quarters_pow2(int64_t e) { return (e * 1262611 - 524031) >> 22; }
static int64_t floor_log2_pow10(int64_t e) { return (e * 1741647) >> 19; }

/* The upper 64 bits of a product of 192; the last of them also stands for whatever is below. */
static uint64_t round_to_odd(const uint64_t *g, uint64_t cp)
{
    const wide low = (wide)g[1] * cp, high = (wide)g[0] * cp + (uint64_t)(low >> 64);
    return (uint64_t)(high >> 64) | ((uint64_t)high > 1);
}

/* A positive double as so many units of a power of ten. */
static uint64_t shortest(uint64_t bits, const uint64_t *powers, int64_t *exponent)
{
    const uint64_t fraction = bits & (((uint64_t)1 << 52) - 1);
    const int64_t biased = (int64_t)(bits >> 52 & 0x7ff);
    const uint64_t c = biased ? fraction | (uint64_t)1 << 52 : fraction;
    const int64_t q = biased ? biased - 1075 : -1074;
    const int is_edge = fraction == 0 && biased > 1; /* the next one below is half as far as the one above */
    const uint64_t open = c & 1;                     /* who ends between two doubles is read as the even one */
    const int64_t k = is_edge ? floor_log10_three_quarters_pow2(q) : floor_log10_pow2(q);
    const int64_t h = q + floor_log2_pow10(-k) + 1;
    const uint64_t *g = powers + 2 * (-k - LOWEST);
    const uint64_t below = round_to_odd(g, (4 * c - (is_edge ? 1 : 2)) << h) + open;
    const uint64_t v = round_to_odd(g, (4 * c) << h);
    const uint64_t above = round_to_odd(g, (4 * c + 2) << h) - open;
    const uint64_t s = v / 4;
    if (s >= 10) { /* one digit fewer, where exactly one such number lies between */
        const uint64_t tens = s / 10;
        const int under = below <= 40 * tens, over = 40 * tens + 40 <= above;
        if (under != over) {
            *exponent = k + 1;
            return tens + (uint64_t)over;
        }
    }
    *exponent = k;
    const int under = below <= 4 * s, over = 4 * s + 4 <= above;
    if (under != over) return s + (uint64_t)over;
    const uint64_t middle = 4 * s + 2;
    return s + (v > middle || (v == middle && (s & 1)));
}

/* Copies 24 bytes, whatever is wanted of them, and room for as many is left: a length that is known takes 2 ns less. */
static char *put_digits(char *at, const char *digits, int64_t count)
{
    memcpy(at, digits, 24);
    return at + count;
}

static char *put_word(char *at, const char *word)
{
    while (*word) *at++ = *word++;
    return at;
}

static void put_pair(char *at, uint32_t number)
{
    static const char pairs[] = "0001020304050607080910111213141516171819202122232425262728293031323334353637383940414243444546474849"
                                "5051525354555657585960616263646566676869707172737475767778798081828384858687888990919293949596979899";
    memcpy(at, pairs + 2 * number, 2);
}

static void put_eight(char *at, uint32_t number)
{
    const uint32_t upper = number / 10000, lower = number % 10000;
    put_pair(at, upper / 100);
    put_pair(at + 2, upper % 100);
    put_pair(at + 4, lower / 100);
    put_pair(at + 6, lower % 100);
}

/* Where the number ends. */
static char *put(char *at, double number, const uint64_t *powers)
{
    uint64_t bits;
    memcpy(&bits, &number, sizeof bits);
    if ((bits >> 52 & 0x7ff) == 0x7ff) return put_word(at, "null"); /* JSON has no other word for them */
    if (bits >> 63) *at++ = '-';
    bits &= ~((uint64_t)1 << 63);
    if (!bits) return put_word(at, "0.0");
    int64_t exponent;
    uint64_t left = shortest(bits, powers, &exponent);
    char buffer[48] = {0}, *digits = buffer + 20;
    uint32_t upper = (uint32_t)(left / 100000000), lower = (uint32_t)(left % 100000000); /* of 17 digits, each by itself: 2 ns less */
    if (upper) {
        digits -= 8;
        put_eight(digits, lower);
    } else
        upper = lower;
    while (upper >= 100) {
        digits -= 2;
        put_pair(digits, upper % 100);
        upper /= 100;
    }
    if (upper >= 10) {
        digits -= 2;
        put_pair(digits, upper);
    } else
        *--digits = (char)('0' + upper);
    int64_t count = buffer + 20 - digits;
    const int64_t first = count + exponent - 1; /* the power of ten of the first digit */
    while (count > 1 && digits[count - 1] == '0') count--;
    if (first < -5 || first > 15) {
        *at++ = *digits;
        if (count > 1) {
            *at++ = '.';
            at = put_digits(at, digits + 1, count - 1);
        }
        *at++ = 'e';
        int64_t power = first < 0 ? -first : first;
        if (first < 0) *at++ = '-';
        if (power >= 100) *at++ = (char)('0' + power / 100);
        if (power >= 10) *at++ = (char)('0' + power / 10 % 10);
        *at++ = (char)('0' + power % 10);
        return at;
    }
    if (first < 0) {
        memcpy(at, "0.0000", 6);
        return put_digits(at + 1 - first, digits, count);
    }
    if (count <= first + 1) {
        at = put_digits(at, digits, count);
        for (; count <= first; count++) *at++ = '0';
        return put_word(at, ".0");
    }
    at = put_digits(at, digits, first + 1);
    *at++ = '.';
    return put_digits(at, digits + first + 1, count - first - 1);
}

static PyObject *row(const double *values, Py_ssize_t count, char *text, const uint64_t *powers)
{
    char *at = text;
    *at++ = '[';
    for (Py_ssize_t i = 0; i < count; i++) {
        if (i) *at++ = ',';
        at = put(at, values[i], powers);
    }
    *at++ = ']';
    return PyBytes_FromStringAndSize(text, at - text);
}

/* spelt(values, ends, powers): the values up to the first end, from there to the second, and so on, each as an array in JSON. */
static PyObject *spelt(PyObject *self, PyObject *args)
{
    Py_buffer values, ends, powers;
    (void)self;
    if (!PyArg_ParseTuple(args, "y*y*y*", &values, &ends, &powers)) return NULL;
    const Py_ssize_t known = values.len / 8, rows = ends.len / 8;
    const int64_t *end = ends.buf;
    Py_ssize_t widest = 0;
    PyObject *told = NULL;
    char *text = NULL;
    if (values.len != 8 * known || ends.len != 8 * rows || powers.len != 16 * (HIGHEST - LOWEST + 1)) goto wrong;
    for (Py_ssize_t i = 0; i < rows; i++) {
        const int64_t begin = i ? end[i - 1] : 0;
        if (end[i] < begin || end[i] > known) goto wrong;
        if (end[i] - begin > widest) widest = (Py_ssize_t)(end[i] - begin);
    }
    text = PyMem_Malloc((size_t)widest * LONGEST + 32);
    told = text ? PyList_New(rows) : PyErr_NoMemory();
    for (Py_ssize_t i = 0; told && i < rows; i++) {
        const int64_t begin = i ? end[i - 1] : 0;
        PyObject *one = row((const double *)values.buf + begin, (Py_ssize_t)(end[i] - begin), text, powers.buf);
        if (!one || PyList_SetItem(told, i, one) < 0) Py_CLEAR(told);
    }
    goto done;
wrong:
    PyErr_SetString(PyExc_ValueError, "Expected doubles, ends among them that do not fall, and the powers of ten");
done:
    PyMem_Free(text);
    PyBuffer_Release(&values);
    PyBuffer_Release(&ends);
    PyBuffer_Release(&powers);
    return told;
}

static PyMethodDef methods[] = {
    {"spelt", spelt, METH_VARARGS, "spelt(values, ends, powers)"},
    {NULL, NULL, 0, NULL},
};

/* What the functions take: Python looks whether it is what it knows. */
static int begin(PyObject *module) { return PyModule_AddIntConstant(module, "INTERFACE", 1); }

static PyModuleDef_Slot slots[] = {{Py_mod_exec, begin}, {0, NULL}};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_figures", "Figures as JSON.", 0, methods, slots, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__figures(void) { return PyModuleDef_Init(&module); }
