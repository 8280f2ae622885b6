// Orthogonal matching pursuit of many vectors with one dictionary, float32 and float64.
//
// The chosen atoms are made orthonormal one after the other, q_1, q_2, ...; what is kept of q_t is row t of U, its
// products with all atoms. Row t of the progressive Cholesky factor L of the chosen atoms' Gram matrix is then read off U
// at the atom's place, and the correlations of all atoms with the residual lose z_t U_t: no triangular system is solved
// before the last step. U lies in panels of a few vectors' width, so that each panel is read from front to back.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
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
using IndicesOut = nb::ndarray<std::int32_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
template <class S>
using Vector = nb::ndarray<const S, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using CountsOut = nb::ndarray<std::int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

constexpr int vectors_of_panel = 4, least_epsilons = 4, dependent_epsilons = 16;
constexpr std::int64_t work_of_task = 1 << 18, most_vectors = 16;

template <class S>
constexpr std::int64_t width = vectors_of_panel * lanes<S>;

template <class S>
inline auto magnitude(S a, S zero) { return max(a, sub(zero, a)); }

// What a thread needs for one vector.
template <class S>
struct Scratch {
    std::vector<S> u, c, l, z, diagonal, largest;
    Scratch(std::int64_t padded, std::int64_t s)
        : u(padded * s), c(padded), l(s), z(s), diagonal(s), largest(padded / width<S>) {}
};

template <class S>
struct Problem {
    std::int64_t k, padded, s;
    const S *gram;  // rows of the padded width
    S tolerance;    // of the square of the residual, as a share of that of the vector
    S row_of(std::int64_t i, std::int64_t j) const { return gram[i * padded + j]; }
};

// Panel p of row j of U, and of the correlations after the step; returns the largest magnitude among the latter.
template <class S>
inline S take_panel(const S *g, const S *u, const S *l, std::int64_t j, S inverse, S z, S *row, S *c) {
    constexpr int w = lanes<S>;
    decltype(load(c)) even[vectors_of_panel], odd[vectors_of_panel];
#pragma GCC unroll 4
    for (int v = 0; v < vectors_of_panel; ++v) even[v] = load(g + v * w), odd[v] = set1(S(0));
    std::int64_t t = 0;
    for (; t + 1 < j; t += 2, u += 2 * width<S>) {
        const auto first = set1(-l[t]), second = set1(-l[t + 1]);
#pragma GCC unroll 4
        for (int v = 0; v < vectors_of_panel; ++v) {
            even[v] = fma(first, load(u + v * w), even[v]);
            odd[v] = fma(second, load(u + width<S> + v * w), odd[v]);
        }
    }
    if (t < j) {
        const auto first = set1(-l[t]);
#pragma GCC unroll 4
        for (int v = 0; v < vectors_of_panel; ++v) even[v] = fma(first, load(u + v * w), even[v]);
    }
    auto most = set1(S(0));
#pragma GCC unroll 4
    for (int v = 0; v < vectors_of_panel; ++v) {
        const auto now = mul(add(even[v], odd[v]), set1(inverse));
        const auto left = fma(set1(-z), now, load(c + v * w));
        store(row + v * w, now);
        store(c + v * w, left);
        most = max(magnitude(left, set1(S(0))), most);
    }
    return largest(most);
}

// The atom of the largest magnitude in the panels, the first of equal ones.
template <class S>
inline std::int64_t find_largest(const Scratch<S> &at, S &value) {
    const auto panel = std::max_element(at.largest.begin(), at.largest.end());
    value = *panel;
    const S *c = at.c.data() + (panel - at.largest.begin()) * width<S>;
    std::int64_t i = 0;
    while (i + 1 < width<S> && std::abs(c[i]) != value) ++i;
    return c + i - at.c.data();
}

// Codes one vector; returns how many atoms it takes.
template <class S>
std::int64_t pursue(const Problem<S> &of, const S *correlations, S square, Scratch<S> &at, std::int32_t *atoms, S *values) {
    constexpr S epsilon = std::numeric_limits<S>::epsilon();
    const std::int64_t panels = of.padded / width<S>, s = of.s;
    std::copy(correlations, correlations + of.k, at.c.begin());
    std::fill(at.c.begin() + of.k, at.c.end(), S(0));
    for (std::int64_t p = 0; p < panels; ++p) {
        S most = 0;
        for (std::int64_t i = p * width<S>; i < (p + 1) * width<S>; ++i) most = std::max(most, std::abs(at.c[i]));
        at.largest[p] = most;
    }
    S least = 0, left = square;
    const S enough = of.tolerance * square;
    workbench::Pace pace;
    std::int64_t j = 0;
    for (; j < s; ++j) {
        if (of.tolerance > 0 && left <= enough) break;
        S value;
        const std::int64_t i = find_largest(at, value);
        if (j == 0) least = least_epsilons * epsilon * value;
        if (!(value > least)) break;  // what is left is rounding
        const S whole = of.row_of(i, i);
        S rest = whole;
        const S *u = at.u.data() + i / width<S> * s * width<S> + i % width<S>;
        for (std::int64_t t = 0; t < j; ++t) at.l[t] = u[t * width<S>], rest -= at.l[t] * at.l[t];
        if (!(rest > dependent_epsilons * epsilon * whole)) break;  // the atom is one of the span of those chosen
        const S root = std::sqrt(rest), z = at.c[i] / root;
        atoms[j] = static_cast<std::int32_t>(i), at.z[j] = z, at.diagonal[j] = root;
        left -= z * z;
        for (std::int64_t p = 0; p < panels; ++p) {
            S *panel = at.u.data() + p * s * width<S>;
            at.largest[p] = take_panel(of.gram + i * of.padded + p * width<S>, panel, at.l.data(), j, S(1) / root, z,
                                       panel + j * width<S>, at.c.data() + p * width<S>);
        }
        for (std::int64_t t = 0; t <= j; ++t) {  // an atom is chosen once: its correlation is rounding from now on
            const std::int64_t p = atoms[t] / width<S>;
            const bool was_largest = std::abs(at.c[atoms[t]]) == at.largest[p];
            at.c[atoms[t]] = 0;
            if (!was_largest) continue;
            S most = 0;
            for (std::int64_t i2 = p * width<S>; i2 < (p + 1) * width<S>; ++i2) most = std::max(most, std::abs(at.c[i2]));
            at.largest[p] = most;
        }
        pace.step((j + 1) * of.padded);
    }
    for (std::int64_t m = j - 1; m >= 0; --m) {  // L^T x = z
        S x = at.z[m];
        for (std::int64_t t = m + 1; t < j; ++t) {
            const std::int64_t i = atoms[t];
            x -= at.u[(i / width<S> * s + m) * width<S> + i % width<S>] * values[t];
        }
        values[m] = x / at.diagonal[m];
    }
    return j;
}

// Fills the places behind the atoms that a vector takes with value 0 and the lowest atoms that it does not take.
template <class S>
void fill_up(std::int64_t taken, std::int64_t k, std::int64_t s, std::int32_t *atoms, S *values) {
    if (taken == s) return;
    std::vector<char> there(k);
    for (std::int64_t j = 0; j < taken; ++j) there[atoms[j]] = 1;
    for (std::int64_t i = 0, j = taken; j < s; ++i)
        if (!there[i]) atoms[j] = static_cast<std::int32_t>(i), values[j++] = 0;
}

template <class S>
void omp(Matrix<S> gram, Matrix<S> correlations, Vector<S> squares, double tolerance, IndicesOut atoms, MatrixOut<S> values,
         CountsOut counts, int threads) {
    const std::int64_t k = static_cast<std::int64_t>(gram.shape(0)), n = static_cast<std::int64_t>(correlations.shape(0));
    const std::int64_t s = static_cast<std::int64_t>(atoms.shape(1)), padded = (k + width<S> - 1) / width<S> * width<S>;
    const S *given = gram.data(), *products = correlations.data(), *norms = squares.data();
    std::int32_t *at = atoms.data(), *count = counts.data();
    S *out = values.data();
    const workbench::WithoutGil released;
    std::vector<S> wide(k * padded);
    for (std::int64_t i = 0; i < k; ++i) std::copy(given + i * k, given + (i + 1) * k, wide.begin() + i * padded);
    const Problem<S> of{k, padded, s, wide.data(), static_cast<S>(tolerance * tolerance)};
    const int workers = threads > 0 ? threads : workbench::get_num_threads();
    const std::int64_t height = std::clamp(work_of_task / std::max<std::int64_t>(1, padded * s * s), std::int64_t{1}, most_vectors);
    std::vector<std::vector<Scratch<S>>> scratch(workers);  // each made by the thread that uses it
    workbench::parallel_for((n + height - 1) / height, workers, [&](std::int64_t task, int worker) {
        if (scratch[worker].empty()) scratch[worker].emplace_back(padded, s);
        for (std::int64_t i = task * height; i < std::min(n, (task + 1) * height); ++i) {
            const std::int64_t taken = pursue(of, products + i * k, norms[i], scratch[worker][0], at + i * s, out + i * s);
            count[i] = static_cast<std::int32_t>(taken);
            fill_up(taken, k, s, at + i * s, out + i * s);
        }
    });
}

template <class S>
void bind(nb::module_ &m) {
    m.def("omp", &omp<S>, nb::arg("gram").noconvert(), nb::arg("correlations").noconvert(), nb::arg("squares").noconvert(),
          nb::arg("tolerance"), nb::arg("atoms").noconvert(), nb::arg("values").noconvert(), nb::arg("counts").noconvert(),
          nb::arg("threads"));
}

}  // namespace

WORKBENCH_BIND(omp) {
    bind<float>(m);
    bind<double>(m);
}
