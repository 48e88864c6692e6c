// Rows of a picture, shared out among threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

namespace spikingir {

// Calls work(next) in each of `threads` threads; next() gives rows until there are none. Starting a thread takes a
// thousandth of what a layer does, so that there is no pool.
template <class Work>
void share_rows(int rows, int threads, const Work& work) {
  std::atomic<int> taken = 0;
  const auto next = [&] { return taken.fetch_add(1, std::memory_order_relaxed); };
  const auto run = [&] { work(next); };
  std::vector<std::jthread> others;
  for (int i = 1; i < std::min(threads, rows); ++i) others.emplace_back(run);
  run();
}

}  // namespace spikingir
