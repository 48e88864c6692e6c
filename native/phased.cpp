// The phased schedule: a layer's window is one convolution of spike counts, in whole numbers.
//
// A tile of pixels and output channels stays in registers; weights and counts come in pairs of input channels, which
// one instruction multiplies and adds (vpdpwssd, vpmaddwd).
#include "kernels.hpp"
#include "vector.hpp"

namespace spikingir::SPIKINGIR_PATH {

namespace {

constexpr int parts = phased_block / lanes;
constexpr int most_blocks = vector_bytes == 64 ? 4 : 1;
constexpr int pixels = vector_bytes == 16 ? 2 : 6;

template <int blocks>
struct Sums {
  Ints value[pixels][blocks * parts];
};

// A pair of channels in 16 bits, or one channel in 32.
struct Narrow {
  using Weight = int16_t;
  static constexpr int channels = 2;
  static Ints counts(const int16_t* from) {
    int32_t pair;
    __builtin_memcpy(&pair, from, sizeof pair);
    return Ints{} + pair;
  }
  static Ints add(Ints sum, Ints weight, Ints counts) { return dot_pairs(sum, weight, counts); }
};

struct Wide {
  using Weight = int32_t;
  static constexpr int channels = 1;
  static Ints counts(const int16_t* from) { return Ints{} + static_cast<int32_t>(*from); }
  static Ints add(Ints sum, Ints weight, Ints counts) { return sum + weight * counts; }
};

template <class Kind, int blocks>
void convolve(const PhasedLayer& layer, const typename Kind::Weight* weights, int y, int x, Sums<blocks>& sums) {
  for (int s = 0; s < layer.sources; ++s) {
    const Source<int16_t>& source = layer.source[s];
    const std::ptrdiff_t pixel = source.view.pixel;
    for (int dy = 0; dy < layer.kernel; ++dy)
      for (int dx = 0; dx < layer.kernel; ++dx) {
        const int16_t* from = source.view.at(y + dy, x + dx);
        for (int c = 0; c < source.channels; c += Kind::channels, weights += phased_block * Kind::channels) {
          Ints weight[blocks * parts];
          for (int b = 0; b < blocks; ++b)
            for (int i = 0; i < parts; ++i)
              weight[b * parts + i] = load<Ints>(weights + b * layer.block + i * lanes * Kind::channels);
#pragma GCC unroll 8
          for (int p = 0; p < pixels; ++p) {
            const Ints counts = Kind::counts(from + p * pixel + c);
#pragma GCC unroll 4
            for (int i = 0; i < blocks * parts; ++i) sums.value[p][i] = Kind::add(sums.value[p][i], weight[i], counts);
          }
        }
      }
  }
}

inline Ints clamped(Ints n, int least, int most) {
  const Ints low = Ints{} + least, high = Ints{} + most;
  n = n < low ? low : n;
  return n > high ? high : n;
}

// n = clip(floor(v + 1/2), 0, T) in units of the threshold, 2^k.
template <int blocks>
void fire(const PhasedLayer& layer, int y, int x, int block, const Sums<blocks>& sums) {
  const int least = layer.has_sign ? -layer.time_steps : 0;
  for (int p = 0; p < pixels && x + p < layer.width; ++p)
    for (int i = 0; i < blocks * parts; ++i) {
      const int channel = block * phased_block + i * lanes;
      const Ints exponent = load<Ints>(layer.exponent + channel), one = Ints{} + 1;
      const Ints v = sums.value[p][i] + load<Ints>(layer.current.at(y, x + p) + channel) * layer.time_steps;
      const Ints n = clamped((v + ((one << exponent) >> 1)) >> exponent, least, layer.time_steps);
      store(layer.counts.at(y, x + p) + channel, __builtin_convertvector(n, HalfShorts));
      if (layer.residual.first) store(layer.residual.at(y, x + p) + channel, v - n * (one << exponent));
    }
}

template <int blocks>
void phased_tile(const PhasedLayer& layer, int y, int x, int block) {
  Sums<blocks> sums{};
  if (layer.narrow)
    convolve<Narrow, blocks>(layer, layer.narrow + block * layer.block, y, x, sums);
  else
    convolve<Wide, blocks>(layer, layer.wide + block * layer.block, y, x, sums);
  fire<blocks>(layer, y, x, block, sums);
}

}  // namespace

void phased_row(const PhasedLayer& layer, int y) {
  for (int x = 0; x < layer.width; x += pixels)
    for (int block = 0; block < layer.blocks;)
      if (layer.blocks - block >= most_blocks) {
        phased_tile<most_blocks>(layer, y, x, block);
        block += most_blocks;
      } else {
        phased_tile<1>(layer, y, x, block++);
      }
}

}  // namespace spikingir::SPIKINGIR_PATH
