/* One version of the MD5 compression of WIDTH streams at once; included once for each instruction set.
 *
 * NAME, WIDTH and TARGET are defined by whoever includes this. MD5 is serial within a stream and independent across
 * streams, so each 32-bit lane of a vector register works on a stream of its own. RFC 1321 gives the rounds.
 */

#if WIDTH == 1
typedef uint32_t VECTOR;
#else
typedef uint32_t VECTOR __attribute__((vector_size(4 * WIDTH)));
#endif

#define ROTATE(x, n) (((x) << (n)) | ((x) >> (32 - (n))))
#define ROUND(f, a, b, c, d, k, s, i) \
    a += f(b, c, d) + m[k] + K[i];    \
    a = ROTATE(a, s) + b;
#define FOUR(f, k0, k1, k2, k3, s0, s1, s2, s3, i) \
    ROUND(f, a, b, c, d, k0, s0, i)                \
    ROUND(f, d, a, b, c, k1, s1, (i) + 1)          \
    ROUND(f, c, d, a, b, k2, s2, (i) + 2)          \
    ROUND(f, b, c, d, a, k3, s3, (i) + 3)

__attribute__((target(TARGET))) static void NAME(uint32_t *state, const uint8_t *const *streams, Py_ssize_t blocks)
{
    VECTOR A, B, C, D;
    memcpy(&A, state, sizeof A);
    memcpy(&B, state + WIDTH, sizeof A);
    memcpy(&C, state + 2 * WIDTH, sizeof A);
    memcpy(&D, state + 3 * WIDTH, sizeof A);
    for (Py_ssize_t n = 0; n < blocks; n++) {
        VECTOR m[16];
        LOAD(m, streams, n)
        VECTOR a = A, b = B, c = C, d = D;
        FOUR(F, 0, 1, 2, 3, 7, 12, 17, 22, 0)
        FOUR(F, 4, 5, 6, 7, 7, 12, 17, 22, 4)
        FOUR(F, 8, 9, 10, 11, 7, 12, 17, 22, 8)
        FOUR(F, 12, 13, 14, 15, 7, 12, 17, 22, 12)
        FOUR(G, 1, 6, 11, 0, 5, 9, 14, 20, 16)
        FOUR(G, 5, 10, 15, 4, 5, 9, 14, 20, 20)
        FOUR(G, 9, 14, 3, 8, 5, 9, 14, 20, 24)
        FOUR(G, 13, 2, 7, 12, 5, 9, 14, 20, 28)
        FOUR(H, 5, 8, 11, 14, 4, 11, 16, 23, 32)
        FOUR(H, 1, 4, 7, 10, 4, 11, 16, 23, 36)
        FOUR(H, 13, 0, 3, 6, 4, 11, 16, 23, 40)
        FOUR(H, 9, 12, 15, 2, 4, 11, 16, 23, 44)
        FOUR(I, 0, 7, 14, 5, 6, 10, 15, 21, 48)
        FOUR(I, 12, 3, 10, 1, 6, 10, 15, 21, 52)
        FOUR(I, 8, 15, 6, 13, 6, 10, 15, 21, 56)
        FOUR(I, 4, 11, 2, 9, 6, 10, 15, 21, 60)
        A += a;
        B += b;
        C += c;
        D += d;
    }
    memcpy(state, &A, sizeof A);
    memcpy(state + WIDTH, &B, sizeof A);
    memcpy(state + 2 * WIDTH, &C, sizeof A);
    memcpy(state + 3 * WIDTH, &D, sizeof A);
}

#undef ROTATE
#undef ROUND
#undef FOUR
