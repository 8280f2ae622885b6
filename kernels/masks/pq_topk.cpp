// Product quantisation in the L1 norm, and the keys whose codes agree with a query's in the most sub-spaces: counts of
// bytes, a cut found by counting, and the places above it.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "python_call.hpp"
#include "registry.hpp"
#include "thread_pool.hpp"

#if defined(__AVX512BW__) || defined(__AVX2__)
#include <immintrin.h>
#endif

namespace nb = nanobind;

namespace {

template <class S>
using Rows = nb::ndarray<const S, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
template <class S>
using Books = nb::ndarray<const S, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using Codes = nb::ndarray<const std::uint8_t, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using CodesOut = nb::ndarray<std::uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using CountsOut = nb::ndarray<std::uint8_t, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using PlacesOut = nb::ndarray<std::int32_t, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using ValidOut = nb::ndarray<std::int32_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Shown = nb::ndarray<const std::uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Bounds = nb::ndarray<const std::uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

constexpr std::int64_t words = 16;  // codewords at once; a book is filled up to a multiple with ones infinitely far away
constexpr std::int64_t rows_of_a_task = 64, keys_at_once = 64;

// Bytes -------------------------------------------------------------------------------------------------------------
// One bit for each of 64 bytes that is at least `low`.
#if defined(__AVX512BW__)
inline std::uint64_t at_least(const std::uint8_t *p, std::uint8_t low) {
    return _mm512_cmpge_epu8_mask(_mm512_loadu_si512(p), _mm512_set1_epi8(static_cast<char>(low)));
}
#elif defined(__AVX2__)
inline std::uint32_t at_least_32(const std::uint8_t *p, __m256i low) {
    const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p));
    return static_cast<std::uint32_t>(_mm256_movemask_epi8(_mm256_cmpeq_epi8(_mm256_max_epu8(x, low), x)));
}
inline std::uint64_t at_least(const std::uint8_t *p, std::uint8_t low) {
    const __m256i to = _mm256_set1_epi8(static_cast<char>(low));
    return at_least_32(p, to) | static_cast<std::uint64_t>(at_least_32(p + 32, to)) << 32;
}
#else
inline std::uint64_t at_least(const std::uint8_t *p, std::uint8_t low) {
    std::uint64_t bits = 0;
    for (int i = 0; i < 64; i += 8) {
        std::uint8_t flags[8];
        for (int j = 0; j < 8; ++j) flags[j] = p[i + j] >= low;
        std::uint64_t eight;
        std::memcpy(&eight, flags, 8);
        if constexpr (std::endian::native == std::endian::big) eight = __builtin_bswap64(eight);
        bits |= ((eight * 0x0102040810204080ull) >> 56) << i;
    }
    return bits;
}
#endif

// How many of `seen` counts are at least `low`; those behind are not asked.
std::int64_t count_at_least(const std::uint8_t *counts, std::int64_t seen, std::uint8_t low) {
    std::int64_t total = 0, j = 0;
    for (; j + keys_at_once <= seen; j += keys_at_once) total += std::popcount(at_least(counts + j, low));
    if (j < seen) total += std::popcount(at_least(counts + j, low) & ((1ull << (seen - j)) - 1));
    return total;
}

// In how many of m sub-spaces each of `stride` keys has the query's code; keys lie sub-space by sub-space.
void count_matches(const std::uint8_t *query, const std::uint8_t *keys, std::int64_t m, std::int64_t stride,
                   std::int64_t seen, std::uint8_t *counts) {
    for (std::int64_t j = 0; j < seen; j += keys_at_once) {
        std::uint8_t found[keys_at_once] = {};
        for (std::int64_t s = 0; s < m; ++s) {
            const std::uint8_t *codes = keys + s * stride + j, code = query[s];
            for (int i = 0; i < keys_at_once; ++i) found[i] = static_cast<std::uint8_t>(found[i] + (codes[i] == code));
        }
        std::memcpy(counts + j, found, keys_at_once);
    }
}

// The keys' codes sub-space by sub-space, filled up to whole vectors: (b, m, stride).
std::vector<std::uint8_t> turned(const std::uint8_t *codes, std::int64_t b, std::int64_t n, std::int64_t m, std::int64_t stride) {
    std::vector<std::uint8_t> out(static_cast<std::size_t>(b * m * stride));
    for (std::int64_t z = 0; z < b; ++z) {
        for (std::int64_t j = 0; j < n; ++j)
            for (std::int64_t s = 0; s < m; ++s) out[(z * m + s) * stride + j] = codes[(z * n + j) * m + s];
        workbench::check_stop();
    }
    return out;
}

// Selection ---------------------------------------------------------------------------------------------------------
struct Choice {
    const std::uint8_t *bounds;  // least count of each bucket, rising; a key below the first is not taken
    std::int64_t buckets, most;
    bool by_count;
    std::uint8_t level[256];  // bucket of each count

    Choice(const std::uint8_t *bounds, std::int64_t buckets, std::int64_t most, bool by_count)
        : bounds(bounds), buckets(buckets), most(most), by_count(by_count) {
        std::int64_t bucket = 0;
        for (int count = 0; count < 256; ++count) {
            if (bucket + 1 < buckets && count >= bounds[bucket + 1]) ++bucket;
            level[count] = static_cast<std::uint8_t>(bucket);
        }
    }
};

// Writes the places of the `most` best of `seen` keys, all that may be taken if there are no more; returns how many. Of
// keys in one bucket those of the lowest index count as the better ones.
std::int64_t choose(const Choice &how, const std::uint8_t *counts, std::int64_t seen, std::int32_t *places, std::int32_t *sorted) {
    std::int64_t cut = 0, above = 0;  // bucket of the last key that is taken, and keys in better buckets
    std::int64_t low = 0, high = how.buckets;
    const std::int64_t there_are = how.bounds[0] == 0 ? seen : count_at_least(counts, seen, how.bounds[0]);
    if (there_are > how.most) {
        while (high - low > 1) {  // at least `most` keys lie in bucket `low` or better, fewer in `high`
            const std::int64_t middle = (low + high) / 2, there = count_at_least(counts, seen, how.bounds[middle]);
            if (there >= how.most) low = middle;
            else high = middle, above = there;
        }
        cut = low;
    } else if (how.buckets > 1) {
        above = count_at_least(counts, seen, how.bounds[1]);
    }
    std::int64_t ties = std::min(there_are, how.most) - above, taken = 0;
    const bool top = cut + 1 == how.buckets;
    for (std::int64_t j = 0; j < seen && taken < how.most; j += keys_at_once) {
        const std::uint64_t there = seen - j < keys_at_once ? (1ull << (seen - j)) - 1 : ~0ull;
        const std::uint64_t better = top ? 0 : at_least(counts + j, how.bounds[cut + 1]) & there;
        std::uint64_t equal = at_least(counts + j, how.bounds[cut]) & there & ~better, bits = better;
        for (; equal != 0 && ties > 0; --ties) {
            bits |= equal & (~equal + 1);
            equal &= equal - 1;
        }
        for (; bits != 0; bits &= bits - 1) places[taken++] = static_cast<std::int32_t>(j + std::countr_zero(bits));
    }
    if (!how.by_count) return taken;
    std::int32_t next[256] = {};  // where the next key of each bucket goes, the best bucket first
    for (std::int64_t p = 0; p < taken; ++p) ++next[how.level[counts[places[p]]]];
    std::int32_t start = 0;
    for (std::int64_t bucket = how.buckets - 1; bucket >= 0; --bucket) start += std::exchange(next[bucket], start);
    for (std::int64_t p = 0; p < taken; ++p) sorted[next[how.level[counts[places[p]]]]++] = places[p];
    std::copy(sorted, sorted + taken, places);
    return taken;
}

void pq_topk(Codes queries, Codes keys, Shown shown, Bounds bounds, PlacesOut places, ValidOut valid, bool causal, bool by_count, int threads) {
    const std::int64_t b = static_cast<std::int64_t>(queries.shape(0)), tq = static_cast<std::int64_t>(queries.shape(1));
    const std::int64_t m = static_cast<std::int64_t>(queries.shape(2)), tk = static_cast<std::int64_t>(keys.shape(1));
    const std::int64_t most = static_cast<std::int64_t>(places.shape(2)), stride = (tk + keys_at_once - 1) / keys_at_once * keys_at_once;
    const Choice how(bounds.data(), static_cast<std::int64_t>(bounds.shape(0)), most, by_count);
    const std::uint8_t *q = queries.data(), *k = keys.data(), *visible = shown.shape(0) ? shown.data() : nullptr;
    std::int32_t *out = places.data(), *counted = valid.data();
    const workbench::WithoutGil released;
    const std::vector<std::uint8_t> by_space = turned(k, b, tk, m, stride);
    const std::int64_t chunks = (tq + rows_of_a_task - 1) / rows_of_a_task;
    workbench::parallel_for(b * chunks, threads, [&](std::int64_t task, int) {
        const std::int64_t z = task / chunks, first = task % chunks * rows_of_a_task, stop = std::min(tq, first + rows_of_a_task);
        std::vector<std::uint8_t> counts(static_cast<std::size_t>(stride));
        std::vector<std::int32_t> sorted(static_cast<std::size_t>(by_count ? most : 0));
        for (std::int64_t i = first; i < stop; ++i) {
            const std::int64_t row = z * tq + i, seen = causal ? i + 1 + tk - tq : tk;
            count_matches(q + row * m, by_space.data() + z * m * stride, m, stride, seen, counts.data());
            if (visible != nullptr)  // one more where a key may be taken, 0 where not
                for (std::int64_t j = 0; j < seen; ++j) counts[j] = static_cast<std::uint8_t>((counts[j] + 1) * visible[z * tk + j]);
            const std::int64_t taken = choose(how, counts.data(), seen, out + row * most, sorted.data());
            std::fill(out + row * most + taken, out + (row + 1) * most, -1);
            counted[row] = static_cast<std::int32_t>(taken);
            workbench::check_stop();
        }
    });
}

void match_counts(Codes queries, Codes keys, CountsOut counts, int threads) {
    const std::int64_t b = static_cast<std::int64_t>(queries.shape(0)), tq = static_cast<std::int64_t>(queries.shape(1));
    const std::int64_t m = static_cast<std::int64_t>(queries.shape(2)), tk = static_cast<std::int64_t>(keys.shape(1));
    const std::int64_t stride = (tk + keys_at_once - 1) / keys_at_once * keys_at_once;
    const std::uint8_t *q = queries.data(), *k = keys.data();
    std::uint8_t *out = counts.data();
    const workbench::WithoutGil released;
    const std::vector<std::uint8_t> by_space = turned(k, b, tk, m, stride);
    const std::int64_t chunks = (tq + rows_of_a_task - 1) / rows_of_a_task;
    workbench::parallel_for(b * chunks, threads, [&](std::int64_t task, int) {
        const std::int64_t z = task / chunks, first = task % chunks * rows_of_a_task, stop = std::min(tq, first + rows_of_a_task);
        std::vector<std::uint8_t> line(static_cast<std::size_t>(stride));
        for (std::int64_t row = z * tq + first; row < z * tq + stop; ++row) {
            count_matches(q + row * m, by_space.data() + z * m * stride, m, stride, tk, line.data());
            std::copy(line.data(), line.data() + tk, out + row * tk);
            workbench::check_stop();
        }
    });
}

// Codes -------------------------------------------------------------------------------------------------------------
// The codeword with the least sum of distances, the first of equal ones. The sum of a codeword runs over the coordinates
// in their order, so its bits are the same on every CPU. Returns false if no distance is finite.
template <class S>
bool nearest(const S *x, const S *book, std::int64_t width, std::int64_t room, std::uint8_t &code) {
    S least = std::numeric_limits<S>::infinity();
    code = 0;
    for (std::int64_t e = 0; e < room; e += words) {
        S distance[words] = {};
        for (std::int64_t c = 0; c < width; ++c) {
            const S value = x[c], *line = book + c * room + e;
            for (int i = 0; i < words; ++i) distance[i] += std::abs(value - line[i]);
        }
        for (int i = 0; i < words; ++i)
            if (distance[i] < least) least = distance[i], code = static_cast<std::uint8_t>(e + i);
    }
    return std::isfinite(least);
}

template <class S>
bool pq_encode(Rows<S> x, Books<S> books, CodesOut codes, int threads) {
    const std::int64_t n = static_cast<std::int64_t>(x.shape(0)), m = static_cast<std::int64_t>(books.shape(0));
    const std::int64_t e = static_cast<std::int64_t>(books.shape(1)), width = static_cast<std::int64_t>(books.shape(2));
    const std::int64_t room = (e + words - 1) / words * words;
    const S *from = x.data(), *given = books.data();
    std::uint8_t *out = codes.data();
    const workbench::WithoutGil released;
    std::vector<S> turned_books(static_cast<std::size_t>(m * width * room), std::numeric_limits<S>::infinity());
    for (std::int64_t s = 0; s < m; ++s)
        for (std::int64_t w = 0; w < e; ++w)
            for (std::int64_t c = 0; c < width; ++c) turned_books[(s * width + c) * room + w] = given[(s * e + w) * width + c];
    const std::int64_t chunks = (n + rows_of_a_task - 1) / rows_of_a_task;
    std::vector<std::uint8_t> odd(static_cast<std::size_t>(chunks), 0);  // one of each task, so that none waits
    workbench::parallel_for(chunks, threads, [&](std::int64_t task, int) {
        for (std::int64_t i = task * rows_of_a_task; i < std::min(n, (task + 1) * rows_of_a_task); ++i) {
            for (std::int64_t s = 0; s < m; ++s)
                if (!nearest(from + (i * m + s) * width, turned_books.data() + s * width * room, width, room, out[i * m + s]))
                    odd[task] = 1;
            workbench::check_stop();
        }
    });
    return std::find(odd.begin(), odd.end(), 1) == odd.end();
}

template <class S>
void bind(nb::module_ &m) {
    m.def("pq_encode", &pq_encode<S>, nb::arg("x").noconvert(), nb::arg("books").noconvert(), nb::arg("codes").noconvert(),
          nb::arg("threads"));
}

}  // namespace

WORKBENCH_BIND(pq_topk_kernels) {
    bind<float>(m);
    bind<double>(m);
    m.def("pq_topk", &pq_topk, nb::arg("queries").noconvert(), nb::arg("keys").noconvert(), nb::arg("shown").noconvert(), nb::arg("bounds").noconvert(),
          nb::arg("places").noconvert(), nb::arg("valid").noconvert(), nb::arg("causal"), nb::arg("by_count"), nb::arg("threads"));
    m.def("match_counts", &match_counts, nb::arg("queries").noconvert(), nb::arg("keys").noconvert(),
          nb::arg("counts").noconvert(), nb::arg("threads"));
}
