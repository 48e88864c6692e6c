#include "layers.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "checks.hpp"
#include "paths.hpp"
#include "threads.hpp"
#include "windows.hpp"

namespace spikingir {

namespace {

constexpr int most_kernel = 7;

template <class Number>
Buffer<Number> filled_up(const Number* from, int channels, int block, Number rest) {
  Buffer<Number> to(std::size_t(whole(channels, block)) * block, rest);
  std::copy_n(from, channels, to.data());
  return to;
}

// Largest magnitude that a sum of `count` different weights of one output channel can reach.
int64_t largest_sum(const Weights<int32_t>& weights, int count) {
  const std::ptrdiff_t row = std::ptrdiff_t(weights.inputs) * weights.kernel * weights.kernel;
  int64_t most = 0;
  for (int o = 0; o < weights.outputs; ++o) {
    std::vector<int32_t> sorted(weights.data + o * row, weights.data + (o + 1) * row);
    std::sort(sorted.begin(), sorted.end());
    int64_t low = 0, high = 0;
    for (int i = 0; i < std::min<std::ptrdiff_t>(count, row); ++i) {
      low += std::min(sorted[i], 0);
      high += std::max(sorted[row - 1 - i], 0);
    }
    most = std::max({most, -low, high});
  }
  return most;
}

// Calls visit(source's first channel, its channels, dy, dx) in the order of a phased layer's weights.
template <class Visit>
void for_each_tap(const std::vector<int>& channels, int kernel, const Visit& visit) {
  int first = 0;
  for (int size : channels) {
    for (int dy = 0; dy < kernel; ++dy)
      for (int dx = 0; dx < kernel; ++dx) visit(first, size, dy, dx);
    first += size;
  }
}

// [block][source][kernel][kernel][group of channels][output channel][channel of the group]
template <class Number>
Buffer<Number> pack_phased(const Weights<int32_t>& weights, const std::vector<int>& channels, int group,
                           std::ptrdiff_t block) {
  const int blocks = whole(weights.outputs, phased_block);
  Buffer<Number> packed(blocks * block, 0);
  for (int b = 0; b < blocks; ++b) {
    Number* end = packed.data() + b * block;
    for_each_tap(channels, weights.kernel, [&](int first, int size, int dy, int dx) {
      for (int i = 0; i < size; i += group)
        for (int o = b * phased_block; o < (b + 1) * phased_block; ++o)
          for (int j = i; j < i + group; ++j, ++end)
            if (o < weights.outputs && j < size) *end = static_cast<Number>(weights.at(o, first + j, dy, dx));
    });
  }
  return packed;
}

// What a layer is given fits it: the spikes that it reads, and the image's current.
void check_input(const PhasedInput& input, const std::vector<int>& channels, int kernel, int depth) {
  check_picture(input.height, input.width, depth, input.border);
  check_range("the number of threads", input.threads, 1, most_threads);
  check_equal("the number of sources", std::ssize(input.sources), std::ssize(channels));
  if (channels.empty() && !input.current) refuse("a layer reads neither spikes nor a current");
  for (std::size_t i = 0; i < channels.size(); ++i) {
    const Counts* spikes = input.sources[i];
    if (!spikes) refuse("a source is None");
    check_equal("the channels of a source", spikes->channels, channels[i]);
    check_equal("the height of a source", spikes->picture.height, input.height);
    check_equal("the width of a source", spikes->picture.width, input.width);
    check_range("the border of a source", spikes->picture.border, kernel / 2, most_border);
  }
  if (!input.current) return;
  check_equal("the height of the current", input.current->height, input.height);
  check_equal("the width of the current", input.current->width, input.width);
  check_range("the channels of the current", input.current->depth, depth, 2 * most_channels);
}

void check_clock(const Clock& clock) {
  check_range("time_steps", clock.time_steps, 1, most_steps);
  check_range("delay", clock.delay, 0, clock.time_steps - 1);
}

// Sizes of a kernel, which reads the channels of its sources.
template <class Number>
void check_weights(const Weights<Number>& weights) {
  check_range("the number of output channels", weights.outputs, 1, most_channels);
  check_range("the number of input channels", weights.inputs, 0, most_channels);
  check_range("the side of the kernel", weights.kernel, 1, most_kernel);
  if (weights.kernel % 2 == 0) refuse("the side of the kernel is even; expected an odd one");
}

void check_channels(const std::vector<int>& channels, int inputs) {
  int64_t sum = 0;
  for (int size : channels) {
    check_range("the channels of a source", size, 1, most_channels);
    sum += size;
  }
  check_equal("the sum of the sources' channels", sum, inputs);
}

}  // namespace

Analog::Analog(Weights<double> given, const double* shift, const int32_t* whole_shift, const std::string& path)
    : kernels((check_weights(given), choose(path))),
      kernel(given.kernel),
      channels(given.inputs),
      blocks(whole(given.outputs, clocked_block) * clocked_block / phased_block),
      weights(std::size_t(blocks) * phased_block * channels * kernel * kernel, 0.0),
      bias(filled_up(shift, given.outputs, clocked_block, 0.0)),
      after(filled_up(whole_shift, given.outputs, clocked_block, 0)) {
  double* end = weights.data();
  for (int b = 0; b < blocks; ++b)
    for (int dy = 0; dy < kernel; ++dy)
      for (int dx = 0; dx < kernel; ++dx)
        for (int i = 0; i < channels; ++i)
          for (int o = b * phased_block; o < (b + 1) * phased_block; ++o, ++end)
            if (o < given.outputs) *end = given.at(o, i, dy, dx);
}

std::unique_ptr<Current> Analog::run(const double* planes, int read, int height, int width, int threads) const {
  check_equal("the channels of the image", read, channels);
  check_picture(height, width, blocks * phased_block, 0);
  check_range("the number of threads", threads, 1, most_threads);
  if (!std::all_of(planes, planes + std::ptrdiff_t(read) * height * width, [](double x) { return std::isfinite(x); }))
    refuse("a value of the image is not finite");
  Picture<double> image(height, width, channels, kernel / 2);
  for (int c = 0; c < channels; ++c)
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x) image.at(y, x)[c] = *planes++;
  auto current = std::make_unique<Current>(height, width, blocks * phased_block, 0);
  const AnalogLayer layer{
      .width = width,
      .kernel = kernel,
      .channels = channels,
      .blocks = blocks,
      .image = std::as_const(image).view(-(kernel / 2), -(kernel / 2)),
      .weights = weights.data(),
      .bias = bias.data(),
      .after = after.data(),
      .current = current->view(),
  };
  share_rows(height, threads, [&](const auto& next) {
    for (int y; (y = next()) < height;) kernels.analog(layer, y);
  });
  return current;
}

Phased::Phased(Weights<int32_t> weights, const std::vector<int>& channels, const int32_t* shift, const int32_t* grid,
               Clock clock, const std::string& path)
    : kernels((check_weights(weights), check_channels(channels, weights.inputs), check_clock(clock), choose(path))),
      clock(clock),
      outputs(weights.outputs),
      kernel(weights.kernel),
      channels(channels),
      bias(filled_up(shift, outputs, phased_block, 0)),
      exponent(filled_up(grid, outputs, phased_block, 0)) {
  for (int o = 0; o < outputs; ++o) check_range("an exponent", grid[o], 0, most_exponent);
  const bool fits = largest_sum(weights, 1) <= INT16_MAX;
  const int group = fits ? 2 : 1;
  block = 0;
  for (int size : channels) block += std::ptrdiff_t(whole(size, group)) * group * kernel * kernel * phased_block;
  if (fits)
    narrow = pack_phased<int16_t>(weights, channels, group, block);
  else
    wide = pack_phased<int32_t>(weights, channels, group, block);
}

Fired<Counts> Phased::fire(const PhasedInput& input) const {
  const int blocks = whole(outputs, phased_block);
  check_input(input, channels, kernel, blocks * phased_block);
  auto counts = std::make_unique<Counts>(
      outputs, clock.time_steps, Picture<int16_t>(input.height, input.width, blocks * phased_block, input.border));
  auto residual =
      input.wants_residual ? std::make_unique<Current>(input.height, input.width, blocks * phased_block, 0) : nullptr;
  std::vector<Source<int16_t>> sources;
  for (const Counts* source : input.sources)
    sources.push_back({source->picture.view(-(kernel / 2), -(kernel / 2)), source->channels});
  const PhasedLayer layer{
      .width = input.width,
      .kernel = kernel,
      .blocks = blocks,
      .sources = static_cast<int>(sources.size()),
      .time_steps = clock.time_steps,
      .has_sign = clock.has_sign,
      .source = sources.data(),
      .narrow = narrow.data(),
      .wide = wide.data(),
      .block = block,
      .exponent = exponent.data(),
      .current = input.current ? input.current->view(0, 0) : View<const int32_t>{bias.data()},
      .counts = counts->picture.view(),
      .residual = residual ? residual->view() : View<int32_t>{},
  };
  share_rows(input.height, input.threads, [&](const auto& next) {
    for (int y; (y = next()) < input.height;) kernels.phased(layer, y);
  });
  return {std::move(counts), std::move(residual)};
}

}  // namespace spikingir
