// An N:M matrix times few columns: a vector takes W values of a row, and the inputs that they meet are picked from
// registers by their positions. For nm_spmm.cpp and wrapped_nm_spmm.cpp.
#pragma once
#include <algorithm>
#include <cstdint>
#include <memory>
#include <numeric>
#include <vector>

#include "nm_rows.hpp"
#include "python_call.hpp"
#include "turn.hpp"

namespace workbench::nm {
namespace {  // one copy per source file and instruction set

constexpr int columns_at_once = W / 4;         // whose sums are in registers together
constexpr std::int64_t rows_of_few = 64;       // rows of a task
constexpr double few_work_of_a_thread = 2.5e5;  // of few_work: some 10 microseconds, and waking a thread takes 8

// Where a vector of W values picks its inputs. The groups of a row do not always begin with a vector, so vectors differ
// until `cycle` of them have passed; vector v reads inputs from `begins[v]` on, and value i of it those of `places[v * W + i]`
// and behind.
struct Picking {
    std::int64_t inputs;           // of a cycle
    int cycle, window, registers;  // vectors of a cycle; inputs that the widest of them may pick from, in how many registers
    std::vector<std::int32_t> begins, places;

    Picking(int n, int m) : cycle(n / std::gcd(n, W)), window(0), begins(cycle), places(cycle * W) {
        for (int v = 0; v < cycle; ++v) {
            const int first = v * W / n;
            begins[v] = first * m;
            for (int i = 0; i < W; ++i) places[v * W + i] = ((v * W + i) / n - first) * m;
            window = std::max(window, places[v * W + W - 1] + m);
        }
        inputs = static_cast<std::int64_t>(cycle) * W / n * m;
        registers = W < 8 || window > 4 * W ? 0 : window > 2 * W ? 4 : 2;
    }
    // Up to so many columns this way is the faster one: README.md has the times.
    std::int64_t most_columns() const { return registers ? W / 2 : std::max(1, W / 8); }
};

// The positions of some values, each behind the first input of its group; places behind `count` are those of position 0.
// Of `registers` vectors of inputs, or from memory where there are none, pick() takes one input for each place.
#if defined(__AVX512F__)
using Places = __m512i;
inline Places places_of(const std::uint8_t *positions, const std::int32_t *first) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i *>(positions));
    return _mm512_add_epi32(_mm512_cvtepu8_epi32(bytes), _mm512_loadu_si512(first));
}
inline Places places_of(const std::uint8_t *positions, const std::int32_t *first, int count) {
    const __m128i bytes = _mm_maskz_loadu_epi8(static_cast<__mmask16>((1u << count) - 1), positions);
    return _mm512_add_epi32(_mm512_cvtepu8_epi32(bytes), _mm512_loadu_si512(first));
}
template <int registers>
inline vf pick(const vf *x, const float *from, const Places &at) {
    if constexpr (registers == 2) return _mm512_permutex2var_ps(x[0], at, x[1]);
    if constexpr (registers == 4)
        return _mm512_mask_blend_ps(_mm512_test_epi32_mask(at, _mm512_set1_epi32(2 * W)), _mm512_permutex2var_ps(x[0], at, x[1]),
                                    _mm512_permutex2var_ps(x[2], at, x[3]));
    return _mm512_i32gather_ps(at, from, 4);
}
#elif defined(__AVX2__)
using Places = __m256i;
inline Places places_of(const std::uint8_t *positions, const std::int32_t *first) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i *>(positions));
    return _mm256_add_epi32(_mm256_cvtepu8_epi32(bytes), _mm256_loadu_si256(reinterpret_cast<const __m256i *>(first)));
}
template <int bit>
inline vf choose(const vf &low, const vf &high, const Places &at) {  // by a bit of the place, moved to the sign
    return _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(at, 31 - bit)));
}
template <int registers>
inline vf pick(const vf *x, const float *from, const Places &at) {
    if constexpr (registers == 2)
        return choose<3>(_mm256_permutevar8x32_ps(x[0], at), _mm256_permutevar8x32_ps(x[1], at), at);
    if constexpr (registers == 4) return choose<4>(pick<2>(x, from, at), pick<2>(x + 2, from, at), at);
    return _mm256_i32gather_ps(from, at, 4);
}
#else
struct Places {
    std::int32_t at[W];
};
inline Places places_of(const std::uint8_t *positions, const std::int32_t *first) {
    Places found;
    for (int i = 0; i < W; ++i) found.at[i] = first[i] + positions[i];
    return found;
}
template <int registers>
inline vf pick(const vf *, const float *from, const Places &at) {
    return vf{from[at.at[0]], from[at.at[1]], from[at.at[2]], from[at.at[3]]};
}
#endif
#if !defined(__AVX512F__)
inline Places places_of(const std::uint8_t *positions, const std::int32_t *first, int count) {
    std::uint8_t some[W] = {};
    std::copy_n(positions, count, some);
    return places_of(some, first);
}
#endif

// Scratch that begins with a cache line and is not cleared.
struct Floats {
    std::unique_ptr<float[]> held;
    float *data = nullptr;
    explicit Floats(std::int64_t size = 0) { if (size) reserve(size); }
    void reserve(std::int64_t size) {
        held.reset(new float[size + 16]);
        data = held.get() + (64 - reinterpret_cast<std::uintptr_t>(held.get()) % 64) % 64 / sizeof(float);
    }
};

// Columns that lie one behind the other, and each with zeros behind it, so that a vector may reach over its end.
struct Columns {
    std::int64_t count, stride;
    Floats room;
    Columns(std::int64_t k, std::int64_t columns, const Picking &picking)
        : count(columns), stride((k + picking.window + 4 * W) / W * W), room(count * stride) {
        for (std::int64_t j = 0; j < count; ++j) std::fill(of(j) + k, of(j + 1), 0.0f);
    }
    float *of(std::int64_t column) const { return room.data + column * stride; }
    void copy(const float *b, std::int64_t k) {
        if (count == 1) std::copy_n(b, k, of(0));
        else
            for (std::int64_t r = 0; r < k; ++r)
                for (std::int64_t j = 0; j < count; ++j) of(j)[r] = b[r * count + j];
    }
};

// Where sums go: those of one column lie `row_step` apart.
struct Target {
    float *data;
    std::int64_t row_step, column_step;
    void put(std::int64_t row, std::int64_t column, const vf &sums, std::int64_t there) const {
        float *to = data + row * row_step + column * column_step;
        if (row_step == 1) {
            if (there == W) store(to, sums);
            else store(to, sums, first_lanes<float>(static_cast<int>(there)));
            return;
        }
        float held[W];
        store(held, sums);
        for (std::int64_t r = 0; r < there; ++r) to[r * row_step] = held[r];
    }
};

template <int registers, int columns>
constexpr int rows_at_once = columns * registers > W / 2 ? 2 : columns == 1 && W == 16 ? 8 : 4;

// The sums of rows i, ..., i + rows - 1 of A; those of row r and column j go to held[j * W + r].
template <int registers, int rows, int columns>
inline void add_few(const Operands &a, const Picking &picking, const float *x, std::int64_t stride, std::int64_t i, vf *held) {
    const std::int64_t kept = a.kept();
    const float *values = a.values + i * kept;
    const std::uint8_t *positions = a.positions + i * kept;
    const std::int32_t *begins = picking.begins.data(), *places = picking.places.data();
    vf acc[rows][columns];
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
        for (int j = 0; j < columns; ++j) acc[r][j] = set1(0.0f);
    int v = 0;
    const auto add_vector = [&](auto value_at, auto places_at) {
        const float *from = x + begins[v];
        vf inputs[columns][std::max(registers, 1)];
#pragma GCC unroll 4
        for (int j = 0; j < columns; ++j)
#pragma GCC unroll 4
            for (int part = 0; part < registers; ++part) inputs[j][part] = load(from + j * stride + part * W);
        const float *value = values;
        const std::uint8_t *position = positions;
#pragma GCC unroll 8
        for (int r = 0; r < rows; ++r) {
            const Places at = places_at(position, places + v * W);
            const vf factor = value_at(value);
#pragma GCC unroll 4
            for (int j = 0; j < columns; ++j)
                acc[r][j] = fma(factor, pick<registers>(inputs[j], from + j * stride, at), acc[r][j]);
            value += kept, position += kept;
        }
        values += W, positions += W;
        if (++v == picking.cycle) v = 0, x += picking.inputs;
    };
    for (std::int64_t p = W; p <= kept; p += W)
        add_vector([](const float *at) { return load(at); },
                   [](const std::uint8_t *at, const std::int32_t *first) { return places_of(at, first); });
    if (const int rest = static_cast<int>(kept % W)) {  // values behind the last are zeros, and so are the inputs they meet
        const Lanes some = first_lanes<float>(rest);
        add_vector([&](const float *at) { return load(at, some); },
                   [&](const std::uint8_t *at, const std::int32_t *first) { return places_of(at, first, rest); });
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
        for (int j = 0; j < columns; ++j) held[j * W + r] = acc[r][j];
}

// Rows [first, end) of A times some columns from `column` on; row `first` is the target's first.
template <int registers, int columns>
void few_rows(const Operands &a, const Picking &picking, const Columns &x, std::int64_t column, std::int64_t first,
              std::int64_t end, const Target &to) {
    constexpr int rows = rows_at_once<registers, columns>;
    vf held[columns * W] = {};
    workbench::Pace pace;
    for (std::int64_t i = first; i < end; i += W) {
        const std::int64_t there = std::min<std::int64_t>(W, end - i);
        std::int64_t r = 0;
        for (; r + rows <= there; r += rows) add_few<registers, rows, columns>(a, picking, x.of(column), x.stride, i + r, held + r);
        for (; r < there; ++r) add_few<registers, 1, columns>(a, picking, x.of(column), x.stride, i + r, held + r);
        for (int j = 0; j < columns; ++j) to.put(i - first, column + j, sums<float>(held + j * W), there);
        pace.step(W * a.kept() * columns);
    }
}

using FewRows = void (*)(const Operands &, const Picking &, const Columns &, std::int64_t, std::int64_t, std::int64_t, const Target &);

template <int registers, int columns = columns_at_once>
FewRows few_rows_of(std::int64_t wanted) {
    if constexpr (columns > 1)
        if (wanted < columns) return few_rows_of<registers, columns - 1>(wanted);
    return few_rows<registers, columns>;
}

// What a product takes: reading a value with its position costs as much as multiplying it with a column.
inline double few_work(const Operands &a) { return static_cast<double>(a.rows * a.kept()) * static_cast<double>(a.columns + 1); }

// Rows [first, end) of A times all columns.
inline void all_few(const Operands &a, const Picking &picking, const Columns &x, std::int64_t first, std::int64_t end, const Target &to) {
    for (std::int64_t j = 0; j < x.count; j += columns_at_once) {
        const std::int64_t count = x.count - j;
        const FewRows form = picking.registers == 2 ? few_rows_of<2>(count) : picking.registers == 4 ? few_rows_of<4>(count) : few_rows_of<0>(count);
        form(a, picking, x, j, first, end, to);
    }
}

}  // namespace
}  // namespace workbench::nm
