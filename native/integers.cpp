// A phased layer in small numbers: its weights in the order that integer.cpp reads them.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>

#include "checks.hpp"
#include "layers.hpp"
#include "paths.hpp"
#include "threads.hpp"
#include "windows.hpp"

namespace spikingir {

namespace {

constexpr int base_bits = 7;  // of a digit, where a weight takes several
constexpr int64_t largest = INT32_MAX;
constexpr int most_image_weight = (1 << 22) - 1;  // its high part takes 16 bits

// Digits of -64 to 63 that the largest of some weights takes.
int digits_of(int64_t weight) {
  int count = 1;
  for (int64_t most = 63; most < weight; most = most * 128 + 63) ++count;
  return count;
}

int32_t next_digit(int32_t& weight) {
  const int32_t digit = ((weight + 64) & 127) - 64;
  weight = (weight - digit) >> base_bits;
  return digit;
}

// What a tile may read to the right of the last pixel of the last row.
int behind(int depth) { return (most_tile * most_stride + 1) * depth + 64; }

}  // namespace

Levels::Levels(int channels, int most, int height, int width, int border)
    : channels(channels),
      most(most),
      picture(height, width, whole(channels, integer_block) * integer_block, border,
              behind(whole(channels, integer_block) * integer_block)) {}

Pixels::Pixels(const double* planes, int channels, int height, int width, int bits, int border)
    : channels(channels), most(0), bits(bits), picture(height, width, channels, border, behind(channels)) {
  const auto whole = [](double number) {  // not a number: 0, too
    return std::abs(number) < INT32_MAX ? static_cast<int32_t>(number) : 0;
  };
  const std::ptrdiff_t size = std::ptrdiff_t(height) * width * channels;
  double largest = 0;
  int32_t all = 0;
  for (std::ptrdiff_t i = 0; i < size; ++i) {
    const double number = planes[i] * (1 << bits);
    largest = std::max(largest, std::abs(number));
    all |= whole(number);
  }
  // a level that is the same everywhere needs no more bits than a pixel; fewer bits make sums fit that would not
  const int spare = std::min(all == 0 ? bits : std::countr_zero(static_cast<uint32_t>(all)), bits - image_digit);
  if (spare > 0) {
    this->bits -= spare;
    largest = std::ldexp(largest, -spare);
  }
  const double unit = 1 << this->bits;
  for (int c = 0; c < channels; ++c)
    for (int y = 0; y < height; ++y) {
      int16_t* to = picture.at(y, 0) + c;
      for (int x = 0; x < width; ++x, to += channels) *to = static_cast<int16_t>(whole(*planes++ * unit));
    }
  most = static_cast<int>(std::min(largest, double{INT32_MAX}));
}

Integer::Integer(Integers given, const std::vector<LevelReading>& sources, const std::vector<const int32_t*>& skips,
                 const ImageReading* reading, const int32_t* given_bias, const int32_t* grid, const std::string& path)
    : kernels(choose(path)),
      kind(given),
      phases{},
      digits(1),
      has_image(reading != nullptr),
      image_reach(0),
      image_digits_reach(0),
      block(0),
      image_block(0),
      image{},
      has_unit(false) {
  check_range("the number of channels", kind.channels, 1, most_channels);
  check_range("the factor", kind.factor, 1, most_stride);
  check_range("the number of steps", kind.steps, 1, kind.last ? most_steps : UINT8_MAX);
  if (kind.has_sign && !kind.last) refuse("a layer before the last one fires -1");
  phases = {kind.channels, kind.factor, integer_block,
            kind.last || (kind.factor > 1 && kind.channels % integer_block != 0)};
  outputs = phases.outputs();
  check_range("the number of output channels", outputs, 1, most_channels);
  blocks = phases.blocks();
  for (const LevelReading& source : sources) {
    check_reading(source, outputs);
    check_range("the levels of a source", source.most, 1, UINT8_MAX);
  }
  const std::size_t padded = phases.padded();
  bias = Buffer<int32_t>(padded, 0);
  exponent = Buffer<int32_t>(padded, 0);
  unit = Buffer<int32_t>(padded, 1);
  for (int o = 0; o < outputs; ++o) {
    check_range("an exponent", grid[o], 0, most_exponent);
    int64_t sum = std::abs(int64_t{given_bias[o]}) * kind.steps + (int64_t{1} << grid[o]);
    for (const LevelReading& source : sources) sum += source.most * reach(source.weights, o);
    for (const int32_t* scale : skips) sum += UINT8_MAX * std::abs(int64_t{scale[o / (kind.factor * kind.factor)]});
    check_sum(sum, o);
    bias[phases.slot(o)] = given_bias[o] * kind.steps + (1 << grid[o] >> 1);
    exponent[phases.slot(o)] = grid[o];
  }
  for (const int32_t* scale : skips) {
    scales.emplace_back(std::size_t(phases.blocks_per_phase()) * integer_block, 0);
    std::copy_n(scale, kind.channels, scales.back().data());
  }
  take_out_units(sources);
  pack(sources);
  if (reading) pack_image(*reading);
}

// All weights of an output channel are multiples of its unit, the largest number of which they are.
void Integer::take_out_units(const std::vector<LevelReading>& sources) {
  std::vector<int32_t> shared(outputs, 0);
  for (const LevelReading& source : sources) share_units(source.weights, shared);
  for (int o = 0; o < outputs; ++o) {
    unit[phases.slot(o)] = std::max(shared[o], 1);
    has_unit = has_unit || shared[o] > 1;
  }
}

void Integer::pack(const std::vector<LevelReading>& sources) {
  int64_t low = 0, high = 0;
  for (const LevelReading& source : sources)
    for_each_weight(source.weights, [&](int o, int, int, int, int32_t weight) {
      weight /= unit[phases.slot(o)];
      low = std::min(low, int64_t{weight});
      high = std::max(high, int64_t{weight});
    });
  digits = low >= INT8_MIN && high <= INT8_MAX ? 1 : digits_of(std::max(-low, high));
  for (bool fits = false; !fits;) {
    windows.clear();
    int words = 0;
    for (const LevelReading& source : sources) {
      const Weights<int32_t>& from = source.weights;
      const int run = whole(from.inputs, integer_block) * integer_block / 4 * from.kernel;
      windows.push_back({from.inputs, from.kernel, source.stride, source.padding, source.most, run, run});
      words += run * from.kernel;
    }
    const std::ptrdiff_t digit = std::ptrdiff_t(words) * 4 * integer_block;
    block = digit * digits;
    weights = Buffer<int8_t>(blocks * block + 64, 0);
    int first = 0;
    for (std::size_t s = 0; s < sources.size(); ++s) {
      const int depth = windows[s].words / windows[s].kernel * 4;
      for_each_weight(sources[s].weights, [&](int o, int i, int dy, int dx, int32_t weight) {
        const int at = phases.slot(o);
        weight /= unit[at];
        const std::ptrdiff_t word = first + dy * windows[s].words + (dx * depth + i) / 4;
        int8_t* to =
            weights.data() + at / integer_block * block + (word * integer_block + at % integer_block) * 4 + i % 4;
        for (int d = digits - 1; d > 0; --d) to[d * digit] = static_cast<int8_t>(next_digit(weight));
        *to = static_cast<int8_t>(weight);
      });
      first += windows[s].words * windows[s].kernel;
    }
    fits = true;
    if (!kernels.has_narrow_sums) continue;
    first = 0;
    for (std::size_t s = 0; s < sources.size(); ++s) {
      windows[s].group = group_of(static_cast<int>(s), first);
      fits = fits && windows[s].group > 0;
      first += windows[s].words * windows[s].kernel;
    }
    if (!fits) ++digits;  // smaller ones: two products of such a digit and a byte always fit
  }
}

// For how many words the 16-bit sums of these weights hold, whatever the counts are; 0 where they do not for one.
int Integer::group_of(int source, int first) const {
  const Window& window = windows[source];
  const std::ptrdiff_t word = 4 * integer_block;
  const int words = window.words * window.kernel;
  const auto holds = [&](int group) {
    for (int b = 0; b < blocks; ++b)
      for (int d = 0; d < digits; ++d) {
        const int8_t* row = weights.data() + b * block + d * (block / digits) + first * word;
        for (int begin = 0; begin < words; begin += group)
          for (int lane = 0; lane < 2 * integer_block; ++lane) {
            int up = 0, down = 0;
            for (int q = begin; q < std::min(begin + group, words); ++q)
              for (int j = 0; j < 2; ++j) {
                const int weight = row[q * word + 2 * lane + j];
                (weight > 0 ? up : down) += weight;
              }
            if (up * window.most > INT16_MAX || down * window.most < INT16_MIN) return false;
          }
      }
    return true;
  };
  for (int count = 1; count < words; ++count)
    if (holds(whole(words, count))) return whole(words, count);
  return holds(1) ? 1 : 0;
}

void Integer::pack_image(const ImageReading& reading) {
  const Weights<int32_t>& from = reading.weights;
  check_reading(reading, outputs);
  // a window's row as pairs of its numbers; the last of an odd number has nothing beside it
  image = {from.inputs, from.kernel, reading.stride, reading.padding, 0, whole(from.inputs * from.kernel, 2), 0};
  image_block = std::ptrdiff_t(image.words) * from.kernel * 2 * integer_block;
  image_bias = Buffer<int32_t>(std::size_t(blocks) * integer_block, 0);
  for (int o = 0; o < outputs; ++o) image_bias[phases.slot(o)] = reading.bias[o];
  for_each_weight(from, [&](int, int, int, int, int32_t weight) {
    check_range("a weight on the image", weight, -most_image_weight, most_image_weight);
    if (weight != static_cast<int16_t>(weight)) image_reach = largest;  // not one that 16 bits hold
  });
  image_whole = Buffer<int16_t>(blocks * image_block, 0);
  image_low = Buffer<int16_t>(blocks * image_block, 0);
  image_high = Buffer<int16_t>(blocks * image_block, 0);
  std::vector<int64_t> low(outputs, 0), high(outputs, 0);
  for_each_weight(from, [&](int o, int i, int dy, int dx, int32_t weight) {
    const int at = phases.slot(o);
    const int place = dx * from.inputs + i;
    const std::ptrdiff_t pair = dy * image.words + place / 2;
    const std::ptrdiff_t to =
        at / integer_block * image_block + (pair * integer_block + at % integer_block) * 2 + place % 2;
    constexpr int half = 1 << image_digit >> 1;
    const int32_t digit = ((weight + half) & (2 * half - 1)) - half, rest = (weight - digit) >> image_digit;
    image_whole[to] = static_cast<int16_t>(weight);
    image_low[to] = static_cast<int16_t>(digit);
    image_high[to] = static_cast<int16_t>(rest);
    low[o] += std::abs(digit);
    high[o] += std::abs(rest);
  });
  for (int o = 0; o < outputs; ++o) {
    image_reach = std::max(image_reach, reach(from, o));
    image_digits_reach = std::max({image_digits_reach, low[o], high[o]});
  }
}

// Sums of weights as they are fit 32 bits.
bool Integer::fits_whole(const Pixels& pixels) const {
  return pixels.most <= INT16_MAX && pixels.most * image_reach <= largest;
}

// So do those of their high parts, and of the low ones with what the high ones leave.
bool Integer::fits_digits(const Pixels& pixels) const {
  return pixels.most <= INT16_MAX && pixels.most * image_digits_reach <= largest - (int64_t{1} << pixels.bits);
}

void Integer::check(const IntegerInput& input) const {
  check_size(phases, input.height, input.width, phases.blocks_per_phase() * integer_block, input.border);
  check_range("the number of threads", input.threads, 1, most_threads);
  check_equal("the number of sources", std::ssize(input.sources), std::ssize(windows));
  check_equal("the number of skips", std::ssize(input.skips), std::ssize(scales));
  for (std::size_t s = 0; s < windows.size(); ++s) {
    const Levels* source = input.sources[s];
    const Window& window = windows[s];
    if (!source) refuse("a source is None");
    check_range("the largest count of a source", source->most, 1, window.most);
    check_source(*source, window.channels, window.kernel, window.stride, window.padding, input.height, input.width);
  }
  for (const Levels* skip : input.skips) check_skip(skip, phases, input.height, input.width);
  if (input.current) check_current(*input.current, phases, input.height, input.width);
  if (has_image == !input.image && !input.current)
    refuse(has_image ? "the image is missing" : "the layer reads no image");
  if (input.image && input.current) refuse("a layer reads the image or its current, not both");
  if (input.image) {
    if (!has_image) refuse("the layer reads no image");
    if (!takes(*input.image)) refuse("the sums of the image do not fit 32 bits");
    check_source(*input.image, image.channels, image.kernel, image.stride, image.padding, input.height, input.width);
  }
  if (input.sources.empty() && input.skips.empty() && !input.image && !input.current)
    refuse("a layer reads neither spikes nor a current");
}

IntegerFired Integer::fire(const IntegerInput& input) const {
  check(input);
  const int height = input.height * kind.factor, width = input.width * kind.factor;
  const int depth = kind.last ? kind.channels : phases.blocks_per_phase() * integer_block;
  IntegerFired fired;
  if (kind.last)
    fired.counts = std::make_unique<Counts>(kind.channels, kind.steps, Picture<int16_t>(height, width, depth, 0));
  else
    fired.levels = std::make_unique<Levels>(kind.channels, kind.steps, height, width, input.border);
  if (kind.last || input.wants_residual) fired.residual = std::make_unique<Current>(height, width, depth, 0);
  if (phases.scattered && !kind.last)  // what is written channel by channel leaves the rest of a pixel as it is
    for (int y = 0; y < height; ++y)
      std::fill_n(fired.levels->picture.at(y, 0), std::ptrdiff_t(width) * depth, uint8_t{0});
  std::vector<IntegerSource> sources;
  for (std::size_t s = 0; s < windows.size(); ++s) {
    const Window& window = windows[s];
    sources.push_back({input.sources[s]->picture.view(-window.padding, -window.padding), window.kernel, window.stride,
                       window.words, window.group});
  }
  std::vector<Skip> skips;
  for (std::size_t s = 0; s < scales.size(); ++s)
    skips.push_back({input.skips[s]->picture.view(0, 0), scales[s].data()});
  IntegerLayer layer{
      .width = input.width,
      .outputs = outputs,
      .channels = kind.channels,
      .factor = kind.factor,
      .blocks_per_phase = phases.blocks_per_phase(),
      .digits = digits,
      .steps = kind.steps,
      .has_sign = kind.has_sign,
      .scattered = phases.scattered,
      .sources = static_cast<int>(sources.size()),
      .source = sources.data(),
      .weights = weights.data(),
      .block = block,
      .skips = static_cast<int>(skips.size()),
      .skip = skips.data(),
      .image = {},
      .unit = has_unit ? unit.data() : nullptr,
      .bias = bias.data(),
      .exponent = exponent.data(),
      .current = input.current ? input.current->view(0, 0) : View<const int32_t>{},
      .levels = fired.levels ? fired.levels->picture.view() : View<uint8_t>{},
      .counts = fired.counts ? fired.counts->picture.view() : View<int16_t>{},
      .residual = fired.residual ? fired.residual->view() : View<int32_t>{},
  };
  if (input.image) {
    const bool is_whole = fits_whole(*input.image);
    layer.image = {input.image->picture.view(-image.padding, -image.padding),
                   image.kernel,
                   image.stride,
                   image.words,
                   input.image->bits,
                   is_whole ? nullptr : image_high.data(),
                   is_whole ? image_whole.data() : image_low.data(),
                   image_block,
                   image_bias.data()};
  }
  // Few rows of many channels are shared out by channels too.
  const int wanted = input.threads > 1 ? whole(8 * input.threads, input.height) : 1;
  const int each = whole(whole(blocks, std::min(wanted, blocks)), 2) * 2, parts = whole(blocks, each);
  share_rows(input.height * parts, input.threads, [&](const auto& next) {
    for (int i; (i = next()) < input.height * parts;) {
      const int first = i % parts * each;
      kernels.integer(layer, i / parts, first, std::min(first + each, blocks));
    }
  });
  return fired;
}

}  // namespace spikingir
