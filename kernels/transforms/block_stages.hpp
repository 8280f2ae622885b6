// What products with block-diagonal matrices and their gradients share.
#pragma once
#include <nanobind/ndarray.h>

#include <complex>
#include <cstdint>
#include <memory>

#include "../matmul/panels.hpp"

namespace workbench::blocks {
namespace {  // one copy per source file and instruction set

template <class T, int dims>
using In = nanobind::ndarray<const T, nanobind::ndim<dims>, nanobind::c_contig, nanobind::device::cpu>;
template <class T, int dims>
using Out = nanobind::ndarray<T, nanobind::ndim<dims>, nanobind::c_contig, nanobind::device::cpu>;

constexpr double work_of_a_thread = 5e5;  // multiply-adds: waking a thread takes a tenth of them

template <class T>
struct Parts {
    using Real = T;
    static constexpr int count = 1;
};
template <class S>
struct Parts<std::complex<S>> {
    using Real = S;
    static constexpr int count = 2;  // a complex feature is two rows of a panel
};
template <class T>
using Real = typename Parts<T>::Real;

template <class T>
struct Stage {
    std::int64_t blocks, out, in, inner;
    const Real<T> *w;
    std::int64_t input(std::int64_t k) const { return k / inner * in * inner + k % inner; }    // first feature of a block
    std::int64_t output(std::int64_t k) const { return k / inner * out * inner + k % inner; }
    const Real<T> *block(std::int64_t k) const { return w + k * out * in * Parts<T>::count; }
};

template <class S>
struct Room {
    std::unique_ptr<S[]> held;
    S *data = nullptr;
    std::int64_t size = 0;
    S *of(std::int64_t wanted) {
        if (wanted > size) {
            held.reset(new S[wanted + 64]);
            data = held.get() + (64 - reinterpret_cast<std::uintptr_t>(held.get()) % 64) % 64 / sizeof(S);
            size = wanted;
        }
        return data;
    }
};

}  // namespace
}  // namespace workbench::blocks
