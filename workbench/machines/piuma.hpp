// What the model's two sources share: the form of their buffers, and how a wrong one is refused.
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdint>
#include <stdexcept>

namespace workbench::piuma {

template <typename T> using Array = nanobind::ndarray<T, nanobind::ndim<1>, nanobind::c_contig, nanobind::device::cpu>;
template <typename T> using Matrix = nanobind::ndarray<T, nanobind::ndim<2>, nanobind::c_contig, nanobind::device::cpu>;
using In = Array<const std::int64_t>;
using Out = Array<std::int64_t>;
using OutReal = Array<double>;

constexpr std::int64_t EMPTY = -1;

inline void require(bool holds, const char *message) {
    if (!holds) throw std::invalid_argument(message);
}

}  // namespace workbench::piuma
