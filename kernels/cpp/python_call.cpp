#include "python_call.hpp"

#include <nanobind/nanobind.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <new>
#include <stdexcept>
#include <vector>

#include "registry.hpp"

namespace nb = nanobind;

namespace workbench {
namespace {

using Flag = std::shared_ptr<std::atomic<bool>>;

constexpr std::int64_t between_looks_ns = 50'000'000;  // taking the GIL may take as long as another thread's turn

constinit thread_local Here this_thread;
thread_local std::vector<Flag> tokens;  // that this thread listens to, the innermost last

struct StopFlag {
    Flag flag = std::make_shared<std::atomic<bool>>(false);
};

// Python runs signal handlers in its main thread only. That of a forked child is the one that forked.
bool is_main_thread() { return syscall(SYS_gettid) == getpid(); }

std::int64_t now_ns() {  // to a few milliseconds, at a fifth of the cost of the precise clock
    timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return now.tv_sec * std::int64_t{1'000'000'000} + now.tv_nsec;
}

void look_for_signals(Here &place) {
    const std::int64_t now = now_ns();
    if (now < place.next_look_ns) return;
    place.next_look_ns = now + between_looks_ns;
    nb::gil_scoped_acquire gil;
    if (PyErr_CheckSignals() != 0) throw nb::python_error();
}

}  // namespace

Here &here() { return this_thread; }

WithoutGil::WithoutGil() : call_{tokens.empty() ? nullptr : tokens.back()}, before_(this_thread) {
    if (call_.cancelled && call_.cancelled->load(std::memory_order_relaxed)) throw Cancelled();
    this_thread = {&call_, is_main_thread(), now_ns() + between_looks_ns};
    state_ = PyEval_SaveThread();
}

// While the interpreter shuts down, Python ends a thread that asks for the GIL by pthread_exit, which unwinds the stack
// and would meet destructors and handlers that may not be unwound: the process aborts. So such a thread sleeps until the
// process is gone, as Python itself lets it do from 3.14 on.
WithoutGil::~WithoutGil() {
    this_thread = before_;
    try {
        PyEval_RestoreThread(state_);
    } catch (...) {
        for (;;) pause();
    }
}

void check_stop() {
    Here &place = this_thread;
    if (place.call == nullptr) return;
    const auto &cancelled = place.call->cancelled;
    if (place.call->failed.load(std::memory_order_relaxed) || (cancelled && cancelled->load(std::memory_order_relaxed)))
        throw Cancelled();
    if (place.takes_signals) look_for_signals(place);
}

}  // namespace workbench

WORKBENCH_BIND(bind_python_call) {
    using namespace workbench;
    nb::exception<Cancelled>(m, "Cancelled");
    nb::register_exception_translator([](const std::exception_ptr &error, void *) {
        constexpr auto words = "a kernel needs more memory than there is; make the operands smaller or use fewer threads";
        try {
            std::rethrow_exception(error);
        } catch (const std::bad_alloc &) {
            PyErr_SetString(PyExc_MemoryError, words);
        } catch (const std::length_error &) {  // a std::vector larger than any address space
            PyErr_SetString(PyExc_MemoryError, words);
        }
    });
    nb::class_<StopFlag>(m, "StopFlag")
        .def(nb::init<>())
        .def("set", [](StopFlag &stop) { *stop.flag = true; })
        .def("is_set", [](const StopFlag &stop) { return stop.flag->load(); })
        .def("listen", [](const StopFlag &stop) { tokens.push_back(stop.flag); })
        .def("stop_listening", [](const StopFlag &) { tokens.pop_back(); });
}
