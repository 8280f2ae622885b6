// A K-SVD sweep over the atoms of a dictionary, and the residual of sparse codes, float32 and float64.
//
// Vectors, residuals and atoms are rows. E of an atom, the residual without its part, is never formed: its rows are
// R_i + x_i d, so that E u costs a product with R_i and one number. A power iteration reads each row once: product, then
// its share of the sum. Rows are summed in chunks of one size and chunks in their order, whatever the threads.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "python_call.hpp"
#include "registry.hpp"
#include "simd.hpp"
#include "thread_pool.hpp"

namespace nb = nanobind;
using namespace workbench::simd;

namespace {

template <class S>
using Matrix = nb::ndarray<const S, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
template <class S>
using MatrixOut = nb::ndarray<S, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Indices = nb::ndarray<const std::int32_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Counts = nb::ndarray<const std::int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

constexpr int together = 4;
constexpr std::int64_t chunk_rows = 64, shared_from = 1 << 18, residual_rows = 16;

// The products of `count` rows with u.
template <int count, class S>
inline void products(const S *const (&row)[count], const S *u, std::int64_t d, Lanes last, S *out) {
    constexpr int w = lanes<S>;
    decltype(load(u)) acc[count];
#pragma GCC unroll 4
    for (int r = 0; r < count; ++r) acc[r] = set1(S(0));
    std::int64_t c = 0;
    for (; c + w <= d; c += w) {
        const auto x = load(u + c);
#pragma GCC unroll 4
        for (int r = 0; r < count; ++r) acc[r] = fma(load(row[r] + c), x, acc[r]);
    }
    if (c < d) {
        const auto x = load(u + c, last);
#pragma GCC unroll 4
        for (int r = 0; r < count; ++r) acc[r] = fma(load(row[r] + c, last), x, acc[r]);
    }
    for (int r = 0; r < count; ++r) out[r] = sum(acc[r]);
}

// to += factor_0 row_0 + factor_1 row_1 + ..., one after the other.
template <int count, class S>
inline void add_rows(const S *const (&row)[count], const S *factor, std::int64_t d, Lanes last, S *to) {
    constexpr int w = lanes<S>;
    std::int64_t c = 0;
    for (; c + w <= d; c += w) {
        auto acc = load(to + c);
#pragma GCC unroll 4
        for (int r = 0; r < count; ++r) acc = fma(set1(factor[r]), load(row[r] + c), acc);
        store(to + c, acc);
    }
    if (c < d) {
        auto acc = load(to + c, last);
#pragma GCC unroll 4
        for (int r = 0; r < count; ++r) acc = fma(set1(factor[r]), load(row[r] + c, last), acc);
        store(to + c, acc, last);
    }
}

template <class S>
struct Sweep {
    std::int64_t n, d, s;
    const S *vectors;
    S *atoms, *values, *residual;
    int power_iterations, workers;
    Lanes last;
    std::vector<std::int64_t> first, uses;  // of each atom, places in `values`, in the order of the vectors
    std::vector<S> partial, u, sums;
    std::vector<char> taken;

    S *row(std::int64_t place) const { return residual + place / s * d; }

    template <class Body>
    void each_chunk(std::int64_t count, Body body) const {
        const std::int64_t chunks = (count + chunk_rows - 1) / chunk_rows;
        if (count * d < shared_from || workers < 2)
            for (std::int64_t c = 0; c < chunks; ++c) body(c);
        else
            workbench::parallel_for(chunks, workers, [&](std::int64_t c, int) { body(c); });
        workbench::check_stop();
    }

    S product(const S *a, const S *b) const {
        const S *const rows[1] = {a};
        S found;
        products<1>(rows, b, d, last, &found);
        return found;
    }

    // body(place, count, t): t_r = E_r . u for up to four uses of an atom at a time, beginning at uses[place].
    template <class Body>
    void along(std::int64_t begin, std::int64_t end, S same, Body body) const {
        for (std::int64_t p = begin; p < end; p += together) {
            const S *rows[together];
            S t[together];
            const int count = static_cast<int>(std::min<std::int64_t>(together, end - p));
            for (int r = 0; r < together; ++r) rows[r] = row(uses[p + std::min(r, count - 1)]);
            products<together>(rows, u.data(), d, last, t);
            for (int r = 0; r < count; ++r) t[r] += values[uses[p + r]] * same;
            for (int r = count; r < together; ++r) t[r] = 0;
            body(p, count, rows, t);
        }
    }

    // u <- E E^T u / ||E E^T u||; false if that is zero.
    bool iterate(std::int64_t j) {
        const std::int64_t begin = first[j], count = first[j + 1] - begin, chunks = (count + chunk_rows - 1) / chunk_rows;
        const S *atom = atoms + j * d;
        const S same = product(atom, u.data());
        if (static_cast<std::int64_t>(partial.size()) < chunks * d) partial.resize(chunks * d);
        if (static_cast<std::int64_t>(sums.size()) < chunks) sums.resize(chunks);
        each_chunk(count, [&](std::int64_t c) {
            S *to = partial.data() + c * d, total = 0;
            std::fill(to, to + d, S(0));
            const std::int64_t from = begin + c * chunk_rows;
            along(from, std::min(begin + count, from + chunk_rows), same,
                  [&](std::int64_t p, int there, const S *const (&rows)[together], const S *t) {
                      add_rows<together>(rows, t, d, last, to);
                      for (int r = 0; r < there; ++r) total += t[r] * values[uses[p + r]];
                  });
            sums[c] = total;
        });
        S total = 0;
        for (std::int64_t c = 0; c < chunks; ++c) total += sums[c];
        const S one = 1;
        for (std::int64_t c = 1; c < chunks; ++c) {
            const S *const more[1] = {partial.data() + c * d};
            add_rows<1>(more, &one, d, last, partial.data());
        }
        const S *const own[1] = {atom};
        add_rows<1>(own, &total, d, last, partial.data());
        const S norm = std::sqrt(product(partial.data(), partial.data()));
        if (!(norm > 0) || !std::isfinite(norm)) return false;
        for (std::int64_t c = 0; c < d; ++c) u[c] = partial[c] / norm;
        return true;
    }

    void update(std::int64_t j) {
        const std::int64_t begin = first[j], count = first[j + 1] - begin;
        S *atom = atoms + j * d;
        std::copy(atom, atom + d, u.begin());
        for (int i = 0; i < power_iterations && iterate(j); ++i) {}
        const S same = product(atom, u.data());
        each_chunk(count, [&](std::int64_t c) {
            const std::int64_t from = begin + c * chunk_rows;
            along(from, std::min(begin + count, from + chunk_rows), same,
                  [&](std::int64_t p, int there, const S *const (&)[together], const S *t) {
                      for (int r = 0; r < there; ++r) {  // R_i + x_i d - t_i u
                          const S *const parts[2] = {atom, u.data()};
                          const S factors[2] = {values[uses[p + r]], -t[r]};
                          add_rows<2>(parts, factors, d, last, row(uses[p + r]));
                          values[uses[p + r]] = t[r];
                      }
                  });
        });
        std::copy(u.begin(), u.begin() + d, atom);
    }

    // Puts the vector that is reconstructed worst, of unit length, in place of an atom that none uses; says if there is one.
    bool replace(std::int64_t j) {
        std::int64_t worst = -1;
        S most = 0;
        for (std::int64_t i = 0; i < n; ++i) {
            if (taken[i]) continue;
            const S square = product(residual + i * d, residual + i * d);
            if (square > most) worst = i, most = square;
            if (i % 1024 == 1023) workbench::check_stop();
        }
        if (worst < 0) return false;
        const S *from = vectors + worst * d;
        const S norm = std::sqrt(product(from, from));
        taken[worst] = 1;
        if (!(norm > 0)) return false;
        for (std::int64_t c = 0; c < d; ++c) atoms[j * d + c] = from[c] / norm;
        return true;
    }
};

template <class S>
std::int64_t ksvd_sweep(Matrix<S> vectors, Indices indices, Counts counts, MatrixOut<S> atoms, MatrixOut<S> values,
                        MatrixOut<S> residual, std::int64_t from, std::int64_t to, int power_iterations, int threads) {
    const std::int64_t n = static_cast<std::int64_t>(vectors.shape(0)), d = static_cast<std::int64_t>(vectors.shape(1));
    const std::int64_t k = static_cast<std::int64_t>(atoms.shape(0)), s = static_cast<std::int64_t>(indices.shape(1));
    const std::int32_t *at = indices.data(), *count = counts.data();
    const int workers = threads > 0 ? threads : workbench::get_num_threads();
    Sweep<S> sweep{n, d, s, vectors.data(), atoms.data(), values.data(), residual.data(), power_iterations, workers,
                   first_lanes<S>(static_cast<int>(d % lanes<S>)), {}, {}, {}, {}, {}, {}};
    const workbench::WithoutGil released;
    sweep.first.assign(k + 1, 0);
    for (std::int64_t i = 0; i < n; ++i)
        for (std::int64_t p = i * s; p < i * s + count[i]; ++p) ++sweep.first[at[p] + 1];
    for (std::int64_t j = 0; j < k; ++j) sweep.first[j + 1] += sweep.first[j];
    sweep.uses.resize(sweep.first[k]);
    std::vector<std::int64_t> next(sweep.first.begin(), sweep.first.end() - 1);
    for (std::int64_t i = 0; i < n; ++i)
        for (std::int64_t p = i * s; p < i * s + count[i]; ++p) sweep.uses[next[at[p]]++] = p;
    sweep.u.resize(d), sweep.partial.resize(d), sweep.taken.resize(n);
    std::int64_t replaced = 0;
    for (std::int64_t j = from; j < to; ++j) {
        if (sweep.first[j + 1] > sweep.first[j])
            sweep.update(j);
        else
            replaced += sweep.replace(j);
        workbench::check_stop();
    }
    return replaced;
}

template <class S>
void code_residual(Matrix<S> vectors, Matrix<S> atoms, Indices indices, Matrix<S> values, Counts counts, MatrixOut<S> out,
                   int threads) {
    const std::int64_t n = static_cast<std::int64_t>(vectors.shape(0)), d = static_cast<std::int64_t>(vectors.shape(1));
    const std::int64_t s = static_cast<std::int64_t>(indices.shape(1));
    const std::int32_t *at = indices.data(), *count = counts.data();
    const S *from = vectors.data(), *atom = atoms.data(), *value = values.data();
    S *to = out.data();
    const Lanes last = first_lanes<S>(static_cast<int>(d % lanes<S>));
    const workbench::WithoutGil released;
    const int workers = threads > 0 ? threads : workbench::get_num_threads();
    workbench::parallel_for((n + residual_rows - 1) / residual_rows, workers, [&](std::int64_t task, int) {
        for (std::int64_t i = task * residual_rows; i < std::min(n, (task + 1) * residual_rows); ++i) {
            std::copy(from + i * d, from + (i + 1) * d, to + i * d);
            std::int64_t p = i * s;
            const std::int64_t end = p + count[i];
            for (; p + together <= end; p += together) {
                const S *rows[together];
                S factors[together];
                for (int r = 0; r < together; ++r) rows[r] = atom + at[p + r] * d, factors[r] = -value[p + r];
                add_rows<together>(rows, factors, d, last, to + i * d);
            }
            for (; p < end; ++p) {
                const S *const rows[1] = {atom + at[p] * d};
                const S factor = -value[p];
                add_rows<1>(rows, &factor, d, last, to + i * d);
            }
        }
    });
}

template <class S>
void bind(nb::module_ &m) {
    m.def("ksvd_sweep", &ksvd_sweep<S>, nb::arg("vectors").noconvert(), nb::arg("indices").noconvert(),
          nb::arg("counts").noconvert(), nb::arg("atoms").noconvert(), nb::arg("values").noconvert(),
          nb::arg("residual").noconvert(), nb::arg("first"), nb::arg("stop"), nb::arg("power_iterations"), nb::arg("threads"));
    m.def("code_residual", &code_residual<S>, nb::arg("vectors").noconvert(), nb::arg("atoms").noconvert(),
          nb::arg("indices").noconvert(), nb::arg("values").noconvert(), nb::arg("counts").noconvert(),
          nb::arg("out").noconvert(), nb::arg("threads"));
}

}  // namespace

WORKBENCH_BIND(ksvd) {
    bind<float>(m);
    bind<double>(m);
}
