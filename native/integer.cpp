// The phased schedule in small numbers: a layer's window is a convolution of counts of one byte with weights of one
// byte, summed in 32 bits, and its neurons fire behind it while the sums are still in the registers.
//
// Weights of more bits come as digits to the base of 128, the first digit first: sums are multiplied by 128 between
// two. A window's row is one run of bytes, as the channels of a pixel's neighbours follow its own.
#include "kernels.hpp"
#include "vector.hpp"

namespace spikingir::SPIKINGIR_PATH {

namespace {

constexpr int parts = integer_block / lanes;

#if defined(SPIKINGIR_AVX512)
constexpr int most_blocks = 2;
constexpr int most = 12, middle = 8, least = 4;  // pixels of a tile
#elif defined(SPIKINGIR_VNNI)
constexpr int most_blocks = 1;
constexpr int most = 6, middle = 4, least = 2;
#elif defined(__AVX2__)
constexpr int most_blocks = 1;
constexpr int most = 4, middle = 4, least = 2;
#else
constexpr int most_blocks = 1;
constexpr int most = 2, middle = 2, least = 1;
#endif
static_assert(most <= most_tile);

template <int pixels, int blocks>
struct Sums {
  Ints value[pixels][blocks * parts];
};

inline Ints four_bytes(const void* from) {
  int32_t bytes;
  __builtin_memcpy(&bytes, from, sizeof bytes);
  return Ints{} + bytes;
}

// Adds the products of `words` words of a window's row, of which each pixel of the tile has its own.
template <Ints (*dot)(Ints, Ints, Ints), int pixels, int blocks>
[[gnu::always_inline]] inline void add_run(Sums<pixels, blocks>& sums, const char* from, std::ptrdiff_t pixel,
                                           int words, const char* weights, std::ptrdiff_t block) {
  for (int q = 0; q < words; ++q, from += 4, weights += vector_bytes * parts) {
    Ints weight[blocks * parts];
#pragma GCC unroll 8
    for (int i = 0; i < blocks * parts; ++i)
      weight[i] = load<Ints>(weights + i / parts * block + i % parts * vector_bytes);
#pragma GCC unroll 16
    for (int p = 0; p < pixels; ++p) {
      const Ints counts = four_bytes(from + p * pixel);
#pragma GCC unroll 8
      for (int i = 0; i < blocks * parts; ++i) sums.value[p][i] = dot(sums.value[p][i], counts, weight[i]);
    }
  }
}

#if defined(__AVX2__) && !defined(SPIKINGIR_VNNI)
// Without an instruction for it, products are summed in 16 bits for as long as these weights cannot leave them.
template <int pixels, int blocks>
[[gnu::noinline]] void add_source(Sums<pixels, blocks>& sums, const IntegerSource& source, int y, int x,
                                  const int8_t* weights, std::ptrdiff_t) {
  static_assert(blocks == 1 && parts == 2);
  const std::ptrdiff_t pixel = source.view.pixel * source.stride;
  const __m256i ones = _mm256_set1_epi16(1);
  __m256i sum[pixels][parts]{};
  int left = source.group;
  for (int dy = 0; dy < source.kernel; ++dy) {
    const uint8_t* from = source.view.at(y * source.stride + dy, x * source.stride);
    for (int words = source.words; words > 0;) {
      const int count = words < left ? words : left;
      words -= count;
      left -= count;
      for (const uint8_t* end = from + 4 * count; from != end; from += 4, weights += vector_bytes * parts) {
        const __m256i first = _mm256_load_si256((const __m256i*)weights);
        const __m256i second = _mm256_load_si256((const __m256i*)(weights + vector_bytes));
#pragma GCC unroll 8
        for (int p = 0; p < pixels; ++p) {
          const __m256i counts = (__m256i)four_bytes(from + p * pixel);
          sum[p][0] = _mm256_add_epi16(sum[p][0], _mm256_maddubs_epi16(counts, first));
          sum[p][1] = _mm256_add_epi16(sum[p][1], _mm256_maddubs_epi16(counts, second));
        }
      }
      if (left > 0) continue;
      left = source.group;
#pragma GCC unroll 8
      for (int p = 0; p < pixels; ++p)
#pragma GCC unroll 2
        for (int i = 0; i < parts; ++i) {
          sums.value[p][i] += (Ints)_mm256_madd_epi16(sum[p][i], ones);
          sum[p][i] = _mm256_setzero_si256();
        }
    }
  }
  if (left == source.group) return;
#pragma GCC unroll 8
  for (int p = 0; p < pixels; ++p)
#pragma GCC unroll 2
    for (int i = 0; i < parts; ++i) sums.value[p][i] += (Ints)_mm256_madd_epi16(sum[p][i], ones);
}
#else
template <int pixels, int blocks>
[[gnu::always_inline]] inline void add_source(Sums<pixels, blocks>& sums, const IntegerSource& source, int y, int x,
                                              const int8_t* weights, std::ptrdiff_t block) {
  for (int dy = 0; dy < source.kernel; ++dy, weights += std::ptrdiff_t(4) * integer_block * source.words) {
    const uint8_t* from = source.view.at(y * source.stride + dy, x * source.stride);
    add_run<dot_quads>(sums, (const char*)from, source.view.pixel * source.stride, source.words, (const char*)weights,
                       block);
  }
}
#endif

template <int pixels, int blocks>
[[gnu::always_inline]] inline void convolve(const IntegerLayer& layer, int y, int x, int block,
                                            Sums<pixels, blocks>& sums) {
  const int8_t* weights = layer.weights + block * layer.block;
  for (int digit = 0; digit < layer.digits; ++digit) {
    if (digit > 0)
      for (int p = 0; p < pixels; ++p)
        for (int i = 0; i < blocks * parts; ++i) sums.value[p][i] *= 128;
    for (int s = 0; s < layer.sources; ++s) {
      add_source(sums, layer.source[s], y, x, weights, layer.block);
      weights += std::ptrdiff_t(4) * integer_block * layer.source[s].words * layer.source[s].kernel;
    }
  }
}

template <int pixels, int blocks>
[[gnu::always_inline]] inline void convolve_image(const ImageSource& image, const int16_t* weights, int y, int x,
                                                  int block, Sums<pixels, blocks>& sums) {
  const char* from_weights = (const char*)(weights + block * image.block);
  for (int dy = 0; dy < image.kernel; ++dy, from_weights += std::ptrdiff_t(4) * integer_block * image.words) {
    const int16_t* from = image.view.at(y * image.stride + dy, x * image.stride);
    add_run<dot_image>(sums, (const char*)from, 2 * image.view.pixel * image.stride, image.words, from_weights,
                       2 * image.block);
  }
}

// The image's current, rounded half to even to the grid once, at each of the window's steps. It is
// whole + part 2^-bits, so that either fits 32 bits.
template <int pixels, int blocks>
[[gnu::always_inline]] inline void add_image(const IntegerLayer& layer, int y, int x, int block,
                                             Sums<pixels, blocks>& sums) {
  const ImageSource& image = layer.image;
  Sums<pixels, blocks> whole, part{};
  for (int i = 0; i < blocks * parts; ++i) {
    const Ints bias = load<Ints>(image.bias + block * integer_block + i * lanes);
    for (int p = 0; p < pixels; ++p) whole.value[p][i] = bias;
  }
  if (image.high) {
    const int bits = image.bits - image_digit;
    convolve_image(image, image.high, y, x, block, part);
    for (int p = 0; p < pixels; ++p)
      for (int i = 0; i < blocks * parts; ++i) {
        whole.value[p][i] += part.value[p][i] >> bits;
        part.value[p][i] = (part.value[p][i] & ((1 << bits) - 1)) << image_digit;
      }
  }
  convolve_image(image, image.low, y, x, block, part);
  const int mask = (1 << image.bits) - 1, half = 1 << image.bits >> 1;
  for (int i = 0; i < blocks * parts; ++i) {
    const Ints unit = load<Ints>(image.unit + block * integer_block + i * lanes);
    for (int p = 0; p < pixels; ++p) {
      const Ints down = whole.value[p][i] + (part.value[p][i] >> image.bits);
      const Ints rounded = down + (((part.value[p][i] & mask) + (half - 1) + (down & 1)) >> image.bits);
      sums.value[p][i] = sums.value[p][i] * unit + rounded * layer.steps;
    }
  }
}

// The membranes of one vector of neurons of a pixel of sums, but for skips, with half of a threshold added.
[[gnu::always_inline]] inline Ints membranes(const IntegerLayer& layer, Ints sum, int y, int x, int channel) {
  Ints v = sum * load<Ints>(layer.unit + channel) + load<Ints>(layer.bias + channel);
  if (layer.current.first) v += load<Ints>(layer.current.at(y, x) + channel) * layer.steps;
  return v;
}

// 16 channels of a block lie side by side in one pixel of the layer.
template <int pixels, int blocks>
[[gnu::always_inline]] inline void fire(const IntegerLayer& layer, int y, int x, int block,
                                        const Sums<pixels, blocks>& sums) {
  for (int b = 0; b < blocks; ++b) {
    const int phase = (block + b) / layer.blocks_per_phase,
              first = (block + b) % layer.blocks_per_phase * integer_block;
    const int row = y * layer.factor + phase / layer.factor, column = phase % layer.factor;
    for (int p = 0; p < pixels && x + p < layer.width; ++p) {
      const int at = (x + p) * layer.factor + column;
      Ints v[parts], n[parts];
      for (int i = 0; i < parts; ++i) {
        const int channel = (block + b) * integer_block + i * lanes;
        v[i] = membranes(layer, sums.value[p][b * parts + i], y, x + p, channel);
        for (int s = 0; s < layer.skips; ++s)
          v[i] += load_bytes(layer.skip[s].view.at(row, at) + first + i * lanes) *
                  load<Ints>(layer.skip[s].scale + first + i * lanes);
        n[i] = v[i] >> load<Ints>(layer.exponent + channel);
      }
      uint8_t* levels = layer.levels.at(row, at) + first;
      store_bytes(levels, n, layer.steps);
      if (!layer.residual.first) continue;
      for (int i = 0; i < parts; ++i) {
        const Ints exponent = load<Ints>(layer.exponent + (block + b) * integer_block + i * lanes), one = Ints{} + 1;
        const Ints before = v[i] - ((one << exponent) >> 1);
        store(layer.residual.at(row, at) + first + i * lanes, before - (load_bytes(levels + i * lanes) << exponent));
      }
    }
  }
}

// Calls visit(lane, row, column, channel) for those channels of a block that a layer has: phases of few channels.
template <class Visit>
[[gnu::always_inline]] inline void for_each_output(const IntegerLayer& layer, int y, int x, int block,
                                                   const Visit& visit) {
  int phase = block * integer_block / layer.channels, channel = block * integer_block % layer.channels;
  const int lanes_used = layer.outputs - block * integer_block;
  for (int i = 0; i < integer_block && i < lanes_used; ++i) {
    visit(i, y * layer.factor + phase / layer.factor, x * layer.factor + phase % layer.factor, channel);
    if (++channel == layer.channels) {
      channel = 0;
      ++phase;
    }
  }
}

// Channels of a block that belong to different pixels, or that fire -1: stored one by one.
template <int pixels, int blocks>
void fire_each(const IntegerLayer& layer, int y, int x, int block, const Sums<pixels, blocks>& sums) {
  for (int b = 0; b < blocks; ++b)
    for (int p = 0; p < pixels && x + p < layer.width; ++p) {
      int32_t value[integer_block], count[integer_block];
      const int first = (block + b) * integer_block;
      for (int i = 0; i < parts; ++i)
        store(value + i * lanes, membranes(layer, sums.value[p][b * parts + i], y, x + p, first + i * lanes));
      for (int s = 0; s < layer.skips; ++s)
        for_each_output(layer, y, x + p, block + b, [&](int lane, int row, int column, int channel) {
          value[lane] += layer.skip[s].view.at(row, column)[channel] * layer.skip[s].scale[channel];
        });
      for (int i = 0; i < parts; ++i) {
        const Ints v = load<Ints>(value + i * lanes), exponent = load<Ints>(layer.exponent + first + i * lanes);
        const Ints one = Ints{} + 1, least = Ints{} - (layer.has_sign ? layer.steps : 0), most = Ints{} + layer.steps;
        Ints n = v >> exponent;
        n = n < least ? least : n;
        n = n > most ? most : n;
        store(count + i * lanes, n);
        store(value + i * lanes, v - ((one << exponent) >> 1) - (n << exponent));
      }
      for_each_output(layer, y, x + p, block + b, [&](int lane, int row, int column, int channel) {
        if (layer.counts.first)
          layer.counts.at(row, column)[channel] = static_cast<int16_t>(count[lane]);
        else
          layer.levels.at(row, column)[channel] = static_cast<uint8_t>(count[lane]);
        if (layer.residual.first) layer.residual.at(row, column)[channel] = value[lane];
      });
    }
}

template <int pixels, int blocks>
void run_tile(const IntegerLayer& layer, int y, int x, int block) {
  Sums<pixels, blocks> sums{};
  convolve(layer, y, x, block, sums);
  if (layer.image.low) add_image(layer, y, x, block, sums);
  if (layer.scattered)
    fire_each(layer, y, x, block, sums);
  else
    fire(layer, y, x, block, sums);
}

template <int blocks>
void run_row(const IntegerLayer& layer, int y, int block) {
  int x = 0;
  for (; layer.width - x > middle; x += most) run_tile<most, blocks>(layer, y, x, block);
  if (layer.width - x > least)
    run_tile<middle, blocks>(layer, y, x, block);
  else if (layer.width > x)
    run_tile<least, blocks>(layer, y, x, block);
}

}  // namespace

void integer_row(const IntegerLayer& layer, int y, int block, int end) {
  for (; block + most_blocks <= end; block += most_blocks) run_row<most_blocks>(layer, y, block);
  for (; block < end; ++block) run_row<1>(layer, y, block);
}

}  // namespace spikingir::SPIKINGIR_PATH
