// One call from Python while it computes: without the GIL, and ready to stop when nobody waits for it any more.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>

struct _ts;  // PyThreadState

namespace workbench {

// What ends a call whose token was cancelled; `kernels.cancel.Cancelled` in Python.
struct Cancelled : std::exception {
    const char *what() const noexcept override { return "the kernel was cancelled; nobody waits for its result"; }
};

struct Call {
    std::shared_ptr<std::atomic<bool>> cancelled;  // of the token that the calling thread listens to, or null
    std::atomic<bool> failed{false};               // one of its tasks has thrown: the others need not go on
};

// The call that this thread works for, and whether Python's signals are this thread's to handle.
struct Here {
    Call *call = nullptr;
    bool takes_signals = false;
    std::int64_t next_look_ns = 0;
};
Here &here();

// Lets go of the GIL while it lives. Throws Cancelled at once if the thread's token has been cancelled.
class WithoutGil {
  public:
    WithoutGil();
    ~WithoutGil();
    WithoutGil(const WithoutGil &) = delete;
    WithoutGil &operator=(const WithoutGil &) = delete;

  private:
    Call call_;
    const Here before_;
    _ts *state_;
};

// To be called by every loop now and then: throws Cancelled, or what a Python signal handler raised (Ctrl-C). Costs two
// relaxed loads, and a look at the coarse clock in Python's main thread.
void check_stop();

// body(begin, stop) for runs of at most `length` steps, with a look at the call between them.
template <class Body>
[[gnu::always_inline]] inline void in_runs(std::int64_t begin, std::int64_t end, std::int64_t length, Body body) {
    while (begin < end) {
        const std::int64_t stop = begin + std::min(length, end - begin);
        body(begin, stop);
        begin = stop;
        if (begin < end) check_stop();
    }
}

// For loops whose steps differ in size: looks at the call after every so much work.
class Pace {
  public:
    void step(std::int64_t work) {
        if ((left_ -= work) > 0) return;
        left_ = most;
        check_stop();
    }

  private:
    static constexpr std::int64_t most = 1 << 20;
    std::int64_t left_ = most;
};

}  // namespace workbench
