// Rows of a picture, shared out among threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace spikingir {

// Threads that are waited for, whatever happens; what std::jthread is, which Apple's library lacks.
class Threads {
 public:
  Threads() = default;
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;
  ~Threads() {
    for (std::thread& thread : threads) thread.join();
  }
  template <class Run>
  void start(const Run& run) {
    threads.emplace_back(run);
  }

 private:
  std::vector<std::thread> threads;
};

// Calls work(next) in each of `threads` threads; next() gives rows until there are none. Starting a thread takes a
// thousandth of what a layer does, so that there is no pool. What one of them throws, the caller gets.
template <class Work>
void share_rows(int64_t rows, int threads, const Work& work) {
  std::atomic<int64_t> taken = 0;
  const auto next = [&] { return taken.fetch_add(1, std::memory_order_relaxed); };
  std::exception_ptr failed;
  std::mutex failing;
  const auto run = [&]() noexcept {
    try {
      work(next);
    } catch (...) {
      const std::lock_guard lock(failing);
      failed = std::current_exception();
    }
  };
  {
    Threads others;
    for (int i = 1; i < std::min<int64_t>(threads, rows); ++i) others.start(run);
    run();
  }
  if (failed) std::rethrow_exception(failed);
}

}  // namespace spikingir
