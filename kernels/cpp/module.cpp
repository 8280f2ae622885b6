// Entry point of the extension; compiled once per instruction set under the name WORKBENCH_MODULE.
#include <nanobind/nanobind.h>

#include "registry.hpp"
#include "thread_pool.hpp"

namespace nb = nanobind;

namespace {

const char *cpu_level() {
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
                      __builtin_cpu_supports("bmi2");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                        __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512vnni") &&
                        __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vbmi") &&
                        __builtin_cpu_supports("avx512vbmi2");
    return avx512 ? "avx512" : avx2 ? "avx2" : "baseline";
#else
    return "baseline";
#endif
}

}  // namespace

NB_MODULE(WORKBENCH_MODULE, m) {
    nb::set_leak_warnings(false);  // a process may end while a thread is inside a kernel and holds its objects
    m.def("cpu_level", &cpu_level);
    m.def("set_num_threads", &workbench::set_num_threads);
    m.def("get_num_threads", &workbench::get_num_threads);
    for (auto bind : workbench::bindings()) bind(m);
}
