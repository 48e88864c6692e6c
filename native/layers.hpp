// Layers of a network with their weights in the order that the kernels read them.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kernels.hpp"
#include "memory.hpp"

namespace spikingir {

// Weights as PyTorch orders them: [output channel][input channel][kernel][kernel].
template <class Number>
struct Weights {
  const Number* data;
  int outputs, inputs, kernel;

  Number at(int o, int i, int dy, int dx) const {
    return data[((std::ptrdiff_t(o) * inputs + i) * kernel + dy) * kernel + dx];
  }
};

// What the neurons of a layer have in common.
struct Clock {
  int time_steps, delay;
  bool has_extended_step, has_sign;
};

// Spikes of a phased layer as counts, and of a clocked one as words [step][sign][32 channels].
struct Counts {
  int channels, most;
  Picture<int16_t> picture;
};
struct Trains {
  int channels, steps;
  bool has_sign;
  Picture<uint32_t> picture;
};
using Current = Picture<int32_t>;

// Spikes, and the residual membranes where they were asked for.
template <class Spikes>
using Fired = std::pair<std::unique_ptr<Spikes>, std::unique_ptr<Current>>;

// The current of the image, in whole numbers; `after` is added to what is rounded.
class Analog {
 public:
  Analog(Weights<double> weights, const double* bias, const int32_t* after, const std::string& path);
  std::unique_ptr<Current> run(const double* planes, int read, int height, int width, int threads) const;

 private:
  const Kernels& kernels;
  int kernel, channels, blocks;
  Buffer<double> weights, bias;
  Buffer<int32_t> after;
};

// What one layer reads: spikes of others, in the order of its weights, and the image's current instead of its bias.
template <class Spikes>
struct Input {
  std::vector<const Spikes*> sources;
  const Current* current;
  int height, width, border, threads;
  bool wants_residual;
};

class Phased {
 public:
  Phased(Weights<int32_t> weights, const std::vector<int>& channels, const int32_t* bias, const int32_t* exponent,
         Clock clock, const std::string& path);
  Fired<Counts> fire(const Input<Counts>& input) const;

 private:
  const Kernels& kernels;
  Clock clock;
  int outputs, kernel;
  std::vector<int> channels;
  std::ptrdiff_t block;
  Buffer<int16_t> narrow;
  Buffer<int32_t> wide, bias, exponent;
};

// Numbers of a clocked layer's neurons, one per output channel.
struct Thresholds {
  const int32_t *start, *threshold, *level, *amplitude;
};

class Clocked {
 public:
  Clocked(Weights<int32_t> weights, Weights<int32_t> extended, const std::vector<int>& channels, const int32_t* bias,
          const Thresholds& thresholds, Clock clock, const std::string& path);
  Fired<Trains> fire(const Input<Trains>& input) const;

 private:
  const Kernels& kernels;
  Clock clock;
  int outputs, kernel;
  std::vector<int> channels;
  int rows, chunk;
  bool few;
  Buffer<int16_t> narrow, narrow_extended;
  Buffer<int32_t> wide, wide_extended, each, each_extended, bias, start, threshold, level, amplitude;
};

}  // namespace spikingir
