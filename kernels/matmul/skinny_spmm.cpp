// Tiled-CSL weights times few columns. README.md in this folder says why there are two forms.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "half.hpp"
#include "python_call.hpp"
#include "registry.hpp"
#include "simd.hpp"
#include "thread_pool.hpp"

namespace nb = nanobind;
using namespace workbench::simd;

namespace {

constexpr std::int64_t panel_columns = 64;  // of B at a time: more would not stay in the nearest cache
constexpr std::int64_t run = 1024;         // words taken apart before their rows are summed
constexpr int block = 16, chains = 4;      // words converted at once; independent sums of a row

constexpr std::int64_t ahead = 2048;       // words fetched before they are needed

using Words = nb::ndarray<const std::uint32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Ints = nb::ndarray<const std::int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Dense = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using DenseOut = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

struct Operands {
    std::int64_t m, k, n, tile_m, tile_k, vector;
    const std::uint32_t *words;
    const std::int32_t *offsets, *row_ends;  // row_ends is null if tiles are to be laid out dense
    const float *b;
    float *out;
    std::int64_t row_tiles() const { return (m + tile_m - 1) / tile_m; }
    std::int64_t across() const { return (k + tile_k - 1) / tile_k; }
    std::int64_t stored() const { return offsets[row_tiles() * across()] * vector; }
};

// 64-byte aligned scratch of one thread.
struct Buffer {
    std::unique_ptr<float[]> memory;
    float *data;
    explicit Buffer(std::int64_t size) : memory(new float[size + 16]) {
        data = memory.get() + (64 - reinterpret_cast<std::uintptr_t>(memory.get()) % 64) % 64 / sizeof(float);
    }
};

typedef std::uint32_t Sixteen __attribute__((vector_size(64)));
typedef std::uint32_t Four __attribute__((vector_size(16)));

// By reference, since how a wide vector is handed over depends on the instruction set.
template <class V, class S>
inline void get(const S *from, V &x) {
    __builtin_memcpy(&x, from, sizeof x);
}
template <class V, class S>
inline void put(S *to, const V &x) {
    __builtin_memcpy(to, &x, sizeof x);
}

// The values of 16 words.
inline void values_of(const std::uint32_t *words, float *to) {
#if defined(__AVX512F__)
    const __m256i halves = _mm512_cvtepi32_epi16(_mm512_loadu_si512(words));
    _mm512_storeu_ps(to, _mm512_cvtph_ps(halves));
#elif defined(__AVX2__)
    const __m256i low = _mm256_set1_epi32(0xffff);
    const __m256i first = _mm256_and_si256(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(words)), low);
    const __m256i second = _mm256_and_si256(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(words + 8)), low);
    const __m256i halves = _mm256_permute4x64_epi64(_mm256_packus_epi32(first, second), 0xd8);
    _mm256_storeu_ps(to, _mm256_cvtph_ps(_mm256_castsi256_si128(halves)));
    _mm256_storeu_ps(to + 8, _mm256_cvtph_ps(_mm256_extracti128_si256(halves, 1)));
#else
    for (int i = 0; i < block; ++i) to[i] = workbench::float_from_half(static_cast<std::uint16_t>(words[i]));
#endif
}

// A panel of B, its rows padded to whole vectors; behind the rows of each tile lies one of zeros.
struct Panel {
    std::int64_t first, columns, width, tile_size;
    Buffer rows;
    Panel(const Operands &a, std::int64_t first_column)
        : first(first_column), columns(std::min(panel_columns, a.n - first_column)), width((columns + W - 1) / W * W),
          tile_size((a.tile_k + 1) * width), rows(a.across() * tile_size) {
        float *to = rows.data;
        for (std::int64_t t = 0; t < a.across(); ++t)
            for (std::int64_t i = 0; i <= a.tile_k; ++i, to += width) {
                const std::int64_t r = t * a.tile_k + i, there = i < a.tile_k && r < a.k ? columns : 0;
                if (there) std::copy(a.b + r * a.n + first, a.b + r * a.n + first + there, to);
                std::fill(to + there, to + width, 0.0f);
            }
    }
};

// Words taken apart: their values, and the places of their rows of B in a panel.
struct Entries {
    Buffer values;
    std::vector<std::uint32_t> from;
    explicit Entries(std::int64_t size) : values(size), from(size) {}
};

// What a thread needs: sums of one tile of C, and its words taken apart or laid out.
struct Scratch {
    Buffer sums, dense;
    Entries entries;
    Scratch(const Operands &a, std::int64_t width)
        : sums(a.tile_m * width), dense(a.row_ends ? 0 : a.tile_m * a.tile_k),
          entries(a.row_ends ? a.tile_m * a.tile_k + block : 0) {}
};

// How the positions of a tile are read, and where in a panel its rows of B begin. A call of it handles 16 words.
struct Reading {
    std::uint32_t mask, pitch, zero_row;
    int shift;
    Reading(const Operands &a, std::int64_t width)
        : mask(static_cast<std::uint32_t>(a.tile_k - 1)), pitch(static_cast<std::uint32_t>(width)),
          zero_row(static_cast<std::uint32_t>(a.tile_k * width)),
          shift(std::countr_zero(static_cast<std::uint32_t>(a.tile_k))) {}

    // A word of value zero takes the row of zeros, since zero times infinity is no zero.
    void places(const std::uint32_t *words, std::uint32_t *from) const {
        Sixteen word, place;
        get(words, word);
        column(word >> 16, place);
        put(from, (word & 0x7fff) != 0 ? place * pitch : Sixteen{} + zero_row);
    }
    void in_tile(const std::uint32_t *words, std::uint32_t *to) const {
        Sixteen word, place;
        get(words, word);
        column(word >> 16, place);
        put(to, (word >> 16 & ~mask) | place);
    }

  private:
    void column(const Sixteen &position, Sixteen &to) const { to = (position & mask) ^ (position >> shift) % 8 * 8; }
};

// body(16 words, how many of them count): at the end of all words the others are zeros. Words are read in bursts, which
// the processor's own prefetching does not foresee.
template <class Body>
inline void in_blocks(const Operands &a, std::int64_t begin, std::int64_t end, Body body) {
    const std::int64_t readable = a.stored() - block;
    for (std::int64_t p = begin; p < end; p += block) {
        const int there = static_cast<int>(std::min<std::int64_t>(block, end - p));
        __builtin_prefetch(a.words + p + ahead);
        if (p <= readable) {
            body(a.words + p, there);
        } else {
            std::uint32_t rest[block] = {};
            std::copy(a.words + p, a.words + p + there, rest);
            body(rest, there);
        }
    }
}

// out += sum over p of x[p] * (row of B at from[p]); entry p goes to chain p mod 4, and the four are added in pairs.
template <int vectors>
inline void add_row(const float *x, const std::uint32_t *from, std::int64_t entries, std::uint32_t zero_row,
                    const float *b, float *out) {
    vf acc[chains][vectors];
#pragma GCC unroll 4
    for (int c = 0; c < chains; ++c)
#pragma GCC unroll 4
        for (int j = 0; j < vectors; ++j) acc[c][j] = set1(0.0f);
    const auto add_four = [&](const float *value, const std::uint32_t *place) {
#pragma GCC unroll 4
        for (int c = 0; c < chains; ++c) {
            const vf factor = set1(value[c]);
#pragma GCC unroll 4
            for (int j = 0; j < vectors; ++j) acc[c][j] = fma(factor, load(b + place[c] + j * W), acc[c][j]);
        }
    };
    const std::int64_t whole = entries / chains * chains;
    for (std::int64_t p = 0; p < whole; p += chains) add_four(x + p, from + p);
    // The last ones without a branch, which would be mispredicted in most rows.
    float last[chains];
    std::uint32_t last_from[chains];
    const Four counts = Four{0, 1, 2, 3} < Four{} + static_cast<std::uint32_t>(entries - whole);
    Four bits, places;
    get(x + whole, bits);
    get(from + whole, places);
    put(last, bits & counts);
    put(last_from, (places & counts) | (zero_row & ~counts));
    add_four(last, last_from);
#pragma GCC unroll 4
    for (int j = 0; j < vectors; ++j)
        store(out + j * W, add(load(out + j * W), add(add(acc[0][j], acc[1][j]), add(acc[2][j], acc[3][j]))));
}

template <int vectors>
inline void add_whole_row(const float *x, const std::uint32_t *from, std::int64_t entries, const Reading &read,
                          const float *b, float *out) {
    std::int64_t j = 0;
    for (; j + vectors * W <= read.pitch; j += vectors * W)
        add_row<vectors>(x, from, entries, read.zero_row, b + j, out + j);
    for (; j < read.pitch; j += W) add_row<1>(x, from, entries, read.zero_row, b + j, out + j);
}

// Words that lie row by row: a run of rows is taken apart, then each row is summed in registers.
template <int vectors>
void add_tile_by_rows(const Operands &a, std::int64_t tile, std::int64_t rows, const Reading &read, const float *b,
                      Scratch &scratch) {
    const std::int32_t *ends = a.row_ends + tile * a.tile_m;
    const std::int64_t first = a.offsets[tile] * a.vector;
    float *x = scratch.entries.values.data;
    std::uint32_t *from = scratch.entries.from.data();
    for (std::int64_t r = 0, begin = 0; r < rows;) {
        std::int64_t stop = r + 1;
        while (stop < rows && ends[stop] - begin <= run) ++stop;
        std::int64_t p = 0;
        in_blocks(a, first + begin, first + ends[stop - 1], [&](const std::uint32_t *words, int) {
            values_of(words, x + p);
            read.places(words, from + p);
            p += block;
        });
        for (std::int64_t at = begin; r < stop; at = ends[r++])
            add_whole_row<vectors>(x + at - begin, from + at - begin, ends[r] - at, read, b,
                                   scratch.sums.data + r * read.pitch);
        begin = ends[stop - 1];
    }
}

// Load as sparse, compute as dense: the tile is laid out with its zeros, and a dense product takes it.
void add_tile_dense(const Operands &a, std::int64_t tile, std::int64_t, const Reading &read, const float *b,
                    Scratch &scratch) {
    float *dense = scratch.dense.data;
    std::fill(dense, dense + a.tile_m * a.tile_k, 0.0f);
    const std::int64_t begin = a.offsets[tile] * a.vector, end = a.offsets[tile + 1] * a.vector;
    in_blocks(a, begin, end, [&](const std::uint32_t *words, int there) {
        float x[block];
        std::uint32_t to[block];
        values_of(words, x);
        read.in_tile(words, to);
        for (int i = 0; i < there; ++i) dense[to[i]] = x[i];
    });
    gemm(static_cast<int>(a.tile_m), static_cast<int>(read.pitch), static_cast<int>(a.tile_k), dense, a.tile_k, 1, b,
         read.pitch, scratch.sums.data, read.pitch, true);
}

// One panel of C. Part s of the tiles of K goes to `partial` + s * m * n if the product is split.
void multiply(const Operands &a, const Panel &panel, std::int64_t split_k, float *partial, int threads) {
    const int workers = threads > 0 ? threads : workbench::get_num_threads();
    std::vector<Scratch> scratch;
    for (int i = 0; i < workers; ++i) scratch.emplace_back(a, panel.width);
    const std::int64_t share = (a.across() + split_k - 1) / split_k;
    const Reading read(a, panel.width);
    const auto add = !a.row_ends                          ? add_tile_dense
                     : panel.width <= W                   ? add_tile_by_rows<1>
                     : panel.width < 4 * W || W < 16      ? add_tile_by_rows<2>
                                                          : add_tile_by_rows<4>;
    workbench::parallel_for(a.row_tiles() * split_k, workers, [&](std::int64_t task, int worker) {
        const std::int64_t row_tile = task / split_k, part = task % split_k, top = row_tile * a.tile_m;
        const std::int64_t rows = std::min(a.tile_m, a.m - top);
        Scratch &mine = scratch[worker];
        float *sums = mine.sums.data;
        std::fill(sums, sums + a.tile_m * panel.width, 0.0f);
        for (std::int64_t t = part * share; t < std::min(a.across(), (part + 1) * share); ++t) {
            workbench::check_stop();
            add(a, row_tile * a.across() + t, rows, read, panel.rows.data + t * panel.tile_size, mine);
        }
        float *to = (split_k > 1 ? partial + part * a.m * a.n : a.out) + top * a.n + panel.first;
        for (std::int64_t r = 0; r < rows; ++r)
            std::copy(sums + r * panel.width, sums + r * panel.width + panel.columns, to + r * a.n);
    });
}

void skinny_spmm(Words words, Ints offsets, std::optional<Ints> row_ends, std::int64_t tile_m, std::int64_t tile_k,
                 std::int64_t vector, Dense b, DenseOut out, std::int64_t split_k, int threads) {
    const Operands a{static_cast<std::int64_t>(out.shape(0)), static_cast<std::int64_t>(b.shape(0)),
                     static_cast<std::int64_t>(out.shape(1)), tile_m, tile_k, vector, words.data(), offsets.data(),
                     row_ends ? row_ends->data() : nullptr, b.data(), out.data()};
    const workbench::WithoutGil released;
    std::vector<float> partial(split_k > 1 ? split_k * a.m * a.n : 0);
    for (std::int64_t j = 0; j < a.n; j += panel_columns) {
        workbench::check_stop();
        multiply(a, Panel(a, j), split_k, partial.data(), threads);
    }
    if (split_k == 1) return;
    workbench::parallel_for(a.m, threads, [&](std::int64_t i, int) {
        for (std::int64_t j = i * a.n; j < (i + 1) * a.n; ++j) {
            float total = 0.0f;
            for (std::int64_t s = 0; s < split_k; ++s) total += partial[s * a.m * a.n + j];
            a.out[j] = total;
        }
    });
}

}  // namespace

WORKBENCH_BIND(skinny) {
    m.def("skinny_spmm", &skinny_spmm, nb::arg("words").noconvert(), nb::arg("offsets").noconvert(),
          nb::arg("row_ends").noconvert().none(), nb::arg("tile_m"), nb::arg("tile_k"), nb::arg("vector"),
          nb::arg("b").noconvert(), nb::arg("out").noconvert(), nb::arg("split_k"), nb::arg("threads"));
}
