/* MD5 of many streams at once on one core (multi-buffer MD5). The digests are those of plain MD5.
 *
 * DVC names objects by MD5, which takes longer than all else a commit does; the registers of a modern core hold 8 (AVX2)
 * or 16 (AVX-512) streams side by side. Where neither is there, width() is 0 and hashlib does the work.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__)
#define HAVE_LANES 1
#endif

#define MAX_WIDTH 16
#define FEW 4 /* all lanes together take about as long as a quarter of them one by one */

#ifdef HAVE_LANES

static const uint32_t K[64] = {
    0xd76aa478, 0xe8c7b756, 0x242070db, 0xc1bdceee, 0xf57c0faf, 0x4787c62a, 0xa8304613, 0xfd469501,
    0x698098d8, 0x8b44f7af, 0xffff5bb1, 0x895cd7be, 0x6b901122, 0xfd987193, 0xa679438e, 0x49b40821,
    0xf61e2562, 0xc040b340, 0x265e5a51, 0xe9b6c7aa, 0xd62f105d, 0x02441453, 0xd8a1e681, 0xe7d3fbc8,
    0x21e1cde6, 0xc33707d6, 0xf4d50d87, 0x455a14ed, 0xa9e3e905, 0xfcefa3f8, 0x676f02d9, 0x8d2a4c8a,
    0xfffa3942, 0x8771f681, 0x6d9d6122, 0xfde5380c, 0xa4beea44, 0x4bdecfa9, 0xf6bb4b60, 0xbebfbc70,
    0x289b7ec6, 0xeaa127fa, 0xd4ef3085, 0x04881d05, 0xd9d4d039, 0xe6db99e5, 0x1fa27cf8, 0xc4ac5665,
    0xf4292244, 0x432aff97, 0xab9423a7, 0xfc93a039, 0x655b59c3, 0x8f0ccc92, 0xffeff47d, 0x85845dd1,
    0x6fa87e4f, 0xfe2ce6e0, 0xa3014314, 0x4e0811a1, 0xf7537e82, 0xbd3af235, 0x2ad7d2bb, 0xeb86d391,
};

#define F(x, y, z) ((z) ^ ((x) & ((y) ^ (z))))
#define G(x, y, z) ((y) ^ ((z) & ((x) ^ (y))))
#define H(x, y, z) ((x) ^ (y) ^ (z))
#define I(x, y, z) ((y) ^ ((x) | ~(z)))

#if defined(__clang__)
#define SHUFFLE(type, a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(type, a, b, ...) __builtin_shuffle(a, b, (type){__VA_ARGS__})
#endif

/* Word k of every stream into vector k: a transpose of 32-bit words in three rounds of shuffles, because loading the words
 * one by one costs as much as the hash itself. */
#define LOAD16(m, streams, n)                                                                               \
    v16 r[16], t[16];                                                                                       \
    for (int lane = 0; lane < 16; lane++) memcpy(&r[lane], streams[lane] + (n) * 64, 64);                   \
    for (int i = 0; i < 16; i += 2) {                                                                       \
        t[i] = SHUFFLE(v16, r[i], r[i + 1], 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29);      \
        t[i + 1] = SHUFFLE(v16, r[i], r[i + 1], 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31); \
    }                                                                                                       \
    for (int i = 0; i < 16; i += 4) {                                                                       \
        r[i] = SHUFFLE(v16, t[i], t[i + 2], 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29);      \
        r[i + 1] = SHUFFLE(v16, t[i], t[i + 2], 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31); \
        r[i + 2] = SHUFFLE(v16, t[i + 1], t[i + 3], 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29); \
        r[i + 3] = SHUFFLE(v16, t[i + 1], t[i + 3], 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31); \
    }                                                                                                       \
    for (int j = 0; j < 4; j++) {                                                                           \
        v16 x = SHUFFLE(v16, r[j], r[4 + j], 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27);      \
        v16 y = SHUFFLE(v16, r[j], r[4 + j], 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31);    \
        v16 z = SHUFFLE(v16, r[8 + j], r[12 + j], 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27); \
        v16 w = SHUFFLE(v16, r[8 + j], r[12 + j], 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31); \
        m[j] = SHUFFLE(v16, x, z, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23);                   \
        m[8 + j] = SHUFFLE(v16, x, z, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);         \
        m[4 + j] = SHUFFLE(v16, y, w, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23);               \
        m[12 + j] = SHUFFLE(v16, y, w, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);        \
    }

#define LOAD8(m, streams, n)                                                                \
    for (int half = 0; half < 2; half++) {                                                  \
        v8 r[8], t[8];                                                                      \
        for (int lane = 0; lane < 8; lane++)                                                \
            memcpy(&r[lane], streams[lane] + (n) * 64 + 32 * half, 32);                     \
        for (int i = 0; i < 8; i += 2) {                                                    \
            t[i] = SHUFFLE(v8, r[i], r[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);                   \
            t[i + 1] = SHUFFLE(v8, r[i], r[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);             \
        }                                                                                   \
        for (int i = 0; i < 8; i += 4) {                                                    \
            r[i] = SHUFFLE(v8, t[i], t[i + 2], 0, 1, 8, 9, 4, 5, 12, 13);                   \
            r[i + 1] = SHUFFLE(v8, t[i], t[i + 2], 2, 3, 10, 11, 6, 7, 14, 15);             \
            r[i + 2] = SHUFFLE(v8, t[i + 1], t[i + 3], 0, 1, 8, 9, 4, 5, 12, 13);           \
            r[i + 3] = SHUFFLE(v8, t[i + 1], t[i + 3], 2, 3, 10, 11, 6, 7, 14, 15);         \
        }                                                                                   \
        for (int j = 0; j < 4; j++) {                                                       \
            m[8 * half + j] = SHUFFLE(v8, r[j], r[4 + j], 0, 1, 2, 3, 8, 9, 10, 11);        \
            m[8 * half + 4 + j] = SHUFFLE(v8, r[j], r[4 + j], 4, 5, 6, 7, 12, 13, 14, 15);  \
        }                                                                                   \
    }

#define NAME compress16
#define WIDTH 16
#define VECTOR v16
#define TARGET "avx512f,avx512bw"
#define LOAD LOAD16
#include "_md5lanes_template.h"
#undef NAME
#undef WIDTH
#undef VECTOR
#undef TARGET
#undef LOAD

#define NAME compress8
#define WIDTH 8
#define VECTOR v8
#define TARGET "avx2"
#define LOAD LOAD8
#include "_md5lanes_template.h"
#undef NAME
#undef WIDTH
#undef VECTOR
#undef TARGET
#undef LOAD

/* One lane: for the last streams of a batch, where most lanes would run empty. */
#define LOAD1(m, streams, n) memcpy(m, streams[0] + (n) * 64, 64);
#define NAME compress1
#define WIDTH 1
#define VECTOR v1
#define TARGET "sse2"
#define LOAD LOAD1
#include "_md5lanes_template.h"

static void compress_few(uint32_t *state, const uint8_t *const *streams, Py_ssize_t lanes, Py_ssize_t blocks)
{
    for (Py_ssize_t i = 0; i < lanes; i++) {
        if (streams[i] == NULL) continue;
        uint32_t own[4];
        for (int k = 0; k < 4; k++) own[k] = state[k * lanes + i];
        compress1(own, &streams[i], blocks);
        for (int k = 0; k < 4; k++) state[k * lanes + i] = own[k];
    }
}

static int best_width(void)
{
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")) return 16;
    return __builtin_cpu_supports("avx2") ? 8 : 0;
}

#else

static int best_width(void) { return 0; }

#endif

static PyObject *width(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    return PyLong_FromLong(best_width());
}

/* update(state, streams, blocks): see the docstring below. */
static PyObject *update(PyObject *self, PyObject *args)
{
    (void)self;
    Py_buffer state, views[MAX_WIDTH];
    PyObject *streams;
    Py_ssize_t blocks;
    if (!PyArg_ParseTuple(args, "w*O!n", &state, &PyTuple_Type, &streams, &blocks)) return NULL;
    Py_ssize_t lanes = PyTuple_GET_SIZE(streams), held = 0;
    PyObject *result = NULL;
    const uint8_t *pointers[MAX_WIDTH] = {0};
    const uint8_t *idle = NULL;
    if ((lanes != 8 && lanes != 16) || lanes > best_width() || state.len != 16 * lanes || blocks < 0) {
        PyErr_SetString(PyExc_ValueError, "no such number of lanes on this processor, or a state of the wrong size");
        goto done;
    }
    for (Py_ssize_t i = 0; i < lanes; i++) {
        PyObject *stream = PyTuple_GET_ITEM(streams, i);
        if (stream == Py_None) continue;
        if (PyObject_GetBuffer(stream, &views[held], PyBUF_SIMPLE) < 0) goto done;
        held++;
        if (views[held - 1].len / 64 < blocks) {
            PyErr_SetString(PyExc_ValueError, "a stream has fewer bytes than blocks were asked for");
            goto done;
        }
        pointers[i] = idle = views[held - 1].buf;
    }
#ifdef HAVE_LANES
    if (idle != NULL) {
        Py_BEGIN_ALLOW_THREADS
        if (held * FEW <= lanes) {
            compress_few(state.buf, pointers, lanes, blocks);
        } else {
            /* A lane without a stream works on somebody else's bytes; nobody reads its result. */
            for (Py_ssize_t i = 0; i < lanes; i++)
                if (pointers[i] == NULL) pointers[i] = idle;
            if (lanes == 16)
                compress16(state.buf, pointers, blocks);
            else
                compress8(state.buf, pointers, blocks);
        }
        Py_END_ALLOW_THREADS
    }
#endif
    result = Py_NewRef(Py_None);
done:
    for (Py_ssize_t i = 0; i < held; i++) PyBuffer_Release(&views[i]);
    PyBuffer_Release(&state);
    return result;
}

static PyMethodDef methods[] = {
    {"width", width, METH_NOARGS, "The number of lanes of this processor: 16, 8, or 0 for none."},
    {"update", update, METH_VARARGS,
     "update(state, streams, blocks)\n\nAdvance the MD5 of each stream by `blocks` blocks of 64 bytes.\n\n"
     "`state` is a writable buffer of 16 bytes a lane: words A of all lanes, then B, C, D, in native order. `streams` is a\n"
     "tuple with a buffer (or None for an idle lane) for each lane. The GIL is released."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_md5lanes", "MD5 of many streams at once on one core.", -1, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__md5lanes(void) { return PyModule_Create(&module); }
