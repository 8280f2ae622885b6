// Sums and levels over time in a fixed number of bins, whatever the length of the run.
#pragma once
#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

namespace workbench::piuma {

using std::int64_t;

// A timeline of fixed length: when time runs past its end, neighbouring bins merge and the width doubles.
class Timeline {
  public:
    Timeline(int64_t bins, std::vector<double *> sums, double *peak) : bins_(bins), sums_(std::move(sums)), peak_(peak) {}

    double width = 16;

    void reach(double t) {
        while (t > width * static_cast<double>(bins_)) {
            for (double *sum : sums_) halve(sum, [](double l, double r) { return l + r; });
            halve(peak_, [](double l, double r) { return std::max(l, r); });
            width *= 2;
            per_width_ /= 2;
        }
    }

    void add(double *sum, double t0, double t1, double amount) const {
        int64_t bin = place(t0);
        const int64_t last = place(t1);
        if (bin == last || t1 <= t0) {
            sum[bin] += amount;
            return;
        }
        const double density = amount / (t1 - t0);
        for (double t = t0; bin <= last; ++bin) {
            const double stop = std::min(t1, static_cast<double>(bin + 1) * width);
            sum[bin] += density * (stop - t);
            t = stop;
        }
    }

    // A level that goes linearly from v0 to v1: its time integral, and its peak.
    void level(double *integral, double t0, double t1, double v0, double v1) const {
        const double slope = t1 > t0 ? (v1 - v0) / (t1 - t0) : 0;
        double t = t0, v = v0;
        for (int64_t bin = place(t0), last = place(t1); bin <= last; ++bin) {
            const double stop = std::min(t1, static_cast<double>(bin + 1) * width);
            const double next = v0 + slope * (stop - t0);
            integral[bin] += (v + next) / 2 * (stop - t);
            peak_[bin] = std::max({peak_[bin], v, next});
            t = stop;
            v = next;
        }
    }

  private:
    int64_t place(double t) const { return std::min(bins_ - 1, static_cast<int64_t>(t * per_width_)); }

    template <typename Merge> void halve(double *x, Merge merge) {
        for (int64_t i = 0; i < bins_ / 2; ++i) x[i] = merge(x[2 * i], x[2 * i + 1]);
        std::fill(x + bins_ / 2, x + bins_, 0.0);
    }

    int64_t bins_;
    double per_width_ = 1.0 / 16;  // exact: the width is a power of two
    std::vector<double *> sums_;
    double *peak_;
};

}  // namespace workbench::piuma
