// A clocked layer: its weights in the order that clocked.cpp, clocked_columns.cpp and clocked_few.cpp read them.
#include <algorithm>
#include <limits>

#include "checks.hpp"
#include "layers.hpp"
#include "paths.hpp"
#include "threads.hpp"
#include "windows.hpp"

namespace spikingir {

namespace {

constexpr int64_t most_numbers = int64_t{1} << 27;  // in the lists of a thread
constexpr int64_t most_column_bytes = 512 << 10;    // of a layer's rows by columns
constexpr int most_unit_divisor = 1 << 10;          // by which a unit is made smaller
constexpr int few_inputs = 8;                       // channels of a source that leave its words mostly empty
constexpr int most_scattered = 8;                   // channels of a layer whose phases share one block

}  // namespace

Clocked::Clocked(int channels, int factor, const std::vector<TrainReading>& sources,
                 const std::vector<TrainScales>& skips, const int32_t* given_bias, const Thresholds& thresholds,
                 Clock clock, const std::string& path)
    : kernels(choose(path)),
      clock(clock),
      phases{channels, factor, clocked_block, false},
      steps(clock.time_steps + clock.has_extended_step),
      rows(0),
      pairs(0),
      by_columns(false),
      few(false) {
  check_range("time_steps", clock.time_steps, 1, most_steps);
  check_range("delay", clock.delay, 0, clock.time_steps - 1);
  check_range("the number of channels", channels, 1, most_channels);
  check_range("the factor", factor, 1, most_stride);
  const int outputs = phases.outputs();
  check_range("the number of output channels", outputs, 1, most_channels);
  phases.scattered = channels <= most_scattered && outputs <= clocked_block;
  for (const TrainReading& source : sources) {
    check_reading(source, outputs);
    const auto same = [&](const char* what, int number, int expected) {
      check_equal(std::string("the number of ") + what + " of the extended step", number, expected);
    };
    same("output channels", source.extended.outputs, outputs);
    same("input channels", source.extended.inputs, source.weights.inputs);
    same("rows of the kernel", source.extended.kernel, source.weights.kernel);
    const int inputs = source.weights.inputs, kernel = source.weights.kernel;
    windows.push_back({inputs, kernel, source.stride, source.padding, rows});
    const int64_t all = rows + int64_t{whole(inputs, clocked_block)} * clocked_block * kernel * kernel;
    // places are bytes in 32 bits, and a tile's columns may be as many as 64 windows'
    const int64_t most =
        std::numeric_limits<uint32_t>::max() / (clocked_block * sizeof(int32_t)) / (tile * most_stride);
    if (all > most)
      refuse("a layer reads " + std::to_string(all) + " weights per neuron; expected at most " + std::to_string(most));
    rows = static_cast<int>(all);
  }
  check_sums(sources, skips, given_bias, thresholds);
  const std::size_t padded = phases.padded();
  const auto by_slot = [&](const int32_t* from, bool by_channel, int32_t rest) {
    Buffer<int32_t> to(padded, rest);
    for (int o = 0; o < outputs; ++o) to[phases.slot(o)] = from[by_channel ? o / (factor * factor) : o];
    return to;
  };
  bias = by_slot(given_bias, false, 0);
  start = by_slot(thresholds.start, true, 0);
  threshold = by_slot(thresholds.threshold, true, 1);  // what fills a block up never fires
  level = by_slot(thresholds.level, true, 1);
  amplitude = by_slot(thresholds.amplitude, true, 1);
  for (const TrainScales& skip : skips) {
    scales.push_back(by_slot(skip.regular, true, 0));
    scales_extended.push_back(by_slot(skip.extended, true, 0));
  }
  few = outputs <= few_outputs &&
        std::ranges::all_of(windows, [](const Window& window) { return window.channels <= few_inputs; });
  if (few) {
    pack_few(sources);
    return;
  }
  if (list_room() > most_numbers)
    refuse("a layer reads " + std::to_string(rows) + " weights per neuron at " + std::to_string(clock.time_steps) +
           " steps, too many for the lists of a tile's spikes");
  take_out_units(sources);
  by_columns = has_short_places() && take_short_units(sources);
  if (by_columns) {
    pack_columns(sources);
    return;
  }
  pairs = most_pairs(sources);
  if (pairs > 0)
    pack(sources, true, narrow, narrow_extended);
  else
    pack(sources, false, wide, wide_extended);
}

// Room for the lists of a tile.
int64_t Clocked::list_room() const {
  int64_t room = list_slack;
  for (const Window& window : windows)
    room += int64_t{steps} * ((tile - 1) * window.stride + window.kernel) *
            (window.kernel * words(window.channels) * clocked_block + list_group);
  return room;
}

int64_t Clocked::starts_room() const {
  int64_t room = 0;
  for (const Window& window : windows) room += int64_t{steps} * ((tile - 1) * window.stride + window.kernel + 1);
  return room;
}

// No membrane leaves 32 bits, whatever the spikes are.
void Clocked::check_sums(const std::vector<TrainReading>& sources, const std::vector<TrainScales>& skips,
                         const int32_t* given_bias, const Thresholds& thresholds) const {
  const auto size = [](int32_t number) { return std::abs(int64_t{number}); };
  for (int o = 0; o < phases.outputs(); ++o) {
    const int c = o / (phases.factor * phases.factor);
    int64_t at_step = size(given_bias[o]), at_last = 0;
    for (const TrainReading& source : sources) {
      at_step += reach(source.weights, o);
      at_last += reach(source.extended, o);
    }
    for (const TrainScales& skip : skips) {
      at_step += size(skip.regular[c]);
      at_last += size(skip.extended[c]);
    }
    // neurons that do not fire -1 may fall at every step, and spikes that are small beside the sums let others rise
    check_sum(at_step * clock.time_steps + at_last + size(thresholds.start[c]) + size(thresholds.threshold[c]) +
                  size(thresholds.level[c]) + size(thresholds.amplitude[c]),
              o);
  }
}

// All weights of an output channel are multiples of its unit, the largest number of which they are.
void Clocked::take_out_units(const std::vector<TrainReading>& sources) {
  std::vector<int32_t> shared(phases.outputs(), 0);
  for (const TrainReading& source : sources) {
    share_units(source.weights, shared);
    share_units(source.extended, shared);
  }
  unit = Buffer<int32_t>(phases.padded(), 1);
  for (int o = 0; o < phases.outputs(); ++o) unit[phases.slot(o)] = std::max(shared[o], 1);
}

// How many different rows of a source can be added in 16 bits, whichever they are.
int Clocked::most_pairs(const std::vector<TrainReading>& sources) const {
  int most = std::max(rows, 1);
  const auto add = [&](const Weights<int32_t>& weights) {
    const std::ptrdiff_t row = std::ptrdiff_t(weights.inputs) * weights.kernel * weights.kernel;
    for (int o = 0; o < weights.outputs; ++o) {
      std::vector<int32_t> sorted(weights.data + o * row, weights.data + (o + 1) * row);
      std::ranges::sort(sorted);
      int64_t low = 0, high = 0;
      for (std::ptrdiff_t i = 0; i < std::min<std::ptrdiff_t>(most, row); ++i) {
        low += std::min(sorted[i] / unit[phases.slot(o)], 0);
        high += std::max(sorted[row - 1 - i] / unit[phases.slot(o)], 0);
        if (low < INT16_MIN || high > INT16_MAX) most = static_cast<int>(i);
      }
    }
  };
  for (const TrainReading& source : sources) {
    add(source.weights);
    add(source.extended);
  }
  return most;
}

// Rows of weights of one column of a source that is listed by columns.
static int sums_of_column(int kernel, int channels) {
  return 1 + kernel * words(channels) * digits_of_word * sums_of_digit;
}

// Whether a layer's sources can be listed by columns: 16 bits hold the places of their rows, and a cache the rows.
bool Clocked::has_short_places() const {
  int64_t all = 0;
  for (const Window& window : windows) {
    const int64_t bytes =
        int64_t{sums_of_column(window.kernel, window.channels)} * window.kernel * clocked_block * sizeof(int16_t);
    if (window.stride > 1 || bytes / place_bytes > UINT16_MAX) return false;
    all += phases.blocks() * bytes;
  }
  return all <= most_column_bytes;
}

// The largest divisor of a unit that 16 bits hold, as far as it is looked for; 1 divides all.
static int32_t short_unit(int32_t unit) {
  for (int32_t by = (unit - 1) / INT16_MAX + 1; by <= most_unit_divisor; ++by)
    if (unit % by == 0) return unit / by;
  return 1;
}

// Takes units of 16 bits if those hold the sum of whichever rows, too. On the way to it they may overflow.
bool Clocked::take_short_units(const std::vector<TrainReading>& sources) {
  Buffer<int32_t> shorter(phases.padded());
  std::transform(unit.data(), unit.data() + phases.padded(), shorter.data(), short_unit);
  const auto fit = [&](Weights<int32_t> TrainReading::* of) {
    std::vector<int64_t> low(phases.outputs(), 0), high(phases.outputs(), 0);
    for (const TrainReading& source : sources)
      for_each_weight(source.*of, [&](int o, int, int, int, int32_t weight) {
        (weight < 0 ? low : high)[o] += weight / shorter[phases.slot(o)];
      });
    return std::ranges::min(low) >= INT16_MIN && std::ranges::max(high) <= INT16_MAX;
  };
  if (!fit(&TrainReading::weights) || !fit(&TrainReading::extended)) return false;
  unit = std::move(shorter);
  return true;
}

// Where in a row of 16-bit weights, or of sums, an output channel stands; see ClockedLayer.
static int interleaved_place(int lane) {
  const int half = clocked_block / 2;
  return lane % half / 4 * 8 + lane / half * 4 + lane % 4;
}

// [block][source][dy][digit][its value][dx][output channel], before each source a row of zeros for every dx.
void Clocked::pack_columns(const std::vector<TrainReading>& sources) {
  rows = 0;
  for (Window& window : windows) {
    window.first = rows;
    rows += window.kernel * sums_of_column(window.kernel, window.channels);
  }
  const std::size_t size = std::size_t(rows) * clocked_block;
  narrow = Buffer<int16_t>(phases.blocks() * size, 0);
  narrow_extended = Buffer<int16_t>(phases.blocks() * size, 0);
  for (std::size_t s = 0; s < sources.size(); ++s) {
    const Window& window = windows[s];
    const auto put = [&](const Weights<int32_t>& weights, Buffer<int16_t>& to) {
      for_each_weight(weights, [&](int o, int i, int dy, int dx, int32_t weight) {
        const int slot = phases.slot(o);
        const int digit = dy * words(window.channels) * digits_of_word + i / digit_channels;
        int16_t* const column = to.data() + slot / clocked_block * size + interleaved_place(slot % clocked_block);
        for (int spikes = 0; spikes < sums_of_digit; ++spikes) {
          if (!(spikes >> i % digit_channels & 1)) continue;
          const std::size_t row = window.first + std::size_t(1 + digit * sums_of_digit + spikes) * window.kernel + dx;
          int16_t& sum = column[row * clocked_block];
          sum = static_cast<int16_t>(sum + weight / unit[slot]);
        }
      });
    };
    put(sources[s].weights, narrow);
    put(sources[s].extended, narrow_extended);
  }
}

// [block][source][dx][dy][channel][output channel], a row of zeros behind; see ClockedLayer for `interleaved`.
template <class Number>
void Clocked::pack(const std::vector<TrainReading>& sources, bool interleaved, Buffer<Number>& regular,
                   Buffer<Number>& last) {
  const std::size_t size = std::size_t(rows + 1) * clocked_block;
  regular = Buffer<Number>(phases.blocks() * size, 0);
  last = Buffer<Number>(phases.blocks() * size, 0);
  for (std::size_t s = 0; s < sources.size(); ++s) {
    const Window& window = windows[s];
    const auto put = [&](const Weights<int32_t>& weights, Buffer<Number>& to) {
      for_each_weight(weights, [&](int o, int i, int dy, int dx, int32_t weight) {
        const int slot = phases.slot(o), lane = slot % clocked_block;
        const std::size_t row =
            window.first + std::size_t(dx * window.kernel + dy) * words(window.channels) * clocked_block + i;
        const int place = interleaved ? interleaved_place(lane) : lane;
        to[slot / clocked_block * size + row * clocked_block + place] = static_cast<Number>(weight / unit[slot]);
      });
    };
    put(sources[s].weights, regular);
    put(sources[s].extended, last);
  }
}

// [source][dy][dx][channel][output channel]
void Clocked::pack_few(const std::vector<TrainReading>& sources) {
  std::size_t size = 0;
  for (const Window& window : windows) size += std::size_t(window.channels) * window.kernel * window.kernel;
  const int outputs = phases.outputs();
  each = Buffer<int32_t>(size * outputs);
  each_extended = Buffer<int32_t>(size * outputs);
  std::size_t first = 0;
  for (const TrainReading& source : sources) {
    const auto put = [&](const Weights<int32_t>& weights, Buffer<int32_t>& to) {
      for_each_weight(weights, [&](int o, int i, int dy, int dx, int32_t weight) {
        to[first + std::size_t((dy * weights.kernel + dx) * weights.inputs + i) * outputs + phases.slot(o)] = weight;
      });
    };
    put(source.weights, each);
    put(source.extended, each_extended);
    first += std::size_t(source.weights.inputs) * source.weights.kernel * source.weights.kernel * outputs;
  }
}

void Clocked::check(const ClockedInput& input) const {
  check_size(phases, input.height, input.width,
             steps * (1 + clock.has_sign) * phases.blocks_per_phase() * clocked_block, input.border);
  check_range("the number of threads", input.threads, 1, most_threads);
  check_equal("the number of sources", std::ssize(input.sources), std::ssize(windows));
  check_equal("the number of skips", std::ssize(input.skips), std::ssize(scales));
  const auto check_train = [&](const Trains& trains) {
    check_equal("the steps of a source", trains.steps, steps);
    if (trains.has_sign) refuse("a source fires -1, which a clocked layer cannot read");
  };
  for (std::size_t s = 0; s < windows.size(); ++s) {
    const Window& window = windows[s];
    if (!input.sources[s]) refuse("a source is None");
    check_source(*input.sources[s], window.channels, window.kernel, window.stride, window.padding, input.height,
                 input.width);
    check_train(*input.sources[s]);
  }
  for (const Trains* skip : input.skips) {
    check_skip(skip, phases, input.height, input.width);
    check_train(*skip);
  }
  if (input.current) check_current(*input.current, phases, input.height, input.width);
  if (input.sources.empty() && input.skips.empty() && !input.current)
    refuse("a layer reads neither spikes nor a current");
}

Fired<Trains> Clocked::fire(const ClockedInput& input) const {
  check(input);
  const int height = input.height * phases.factor, width = input.width * phases.factor;
  const int blocks_per_phase = phases.blocks_per_phase();
  auto trains = std::make_unique<Trains>(
      phases.channels, steps, clock.has_sign,
      Picture<uint32_t>(height, width, steps * (1 + clock.has_sign) * blocks_per_phase, input.border));
  std::unique_ptr<Current> residual;
  if (input.wants_residual)
    residual = std::make_unique<Current>(height, width,
                                         phases.scattered ? phases.channels : blocks_per_phase * clocked_block, 0);
  std::vector<TrainSource> sources;
  for (std::size_t s = 0; s < windows.size(); ++s) {
    const Window& window = windows[s];
    sources.push_back({input.sources[s]->picture.view(-window.padding, -window.padding), window.channels, window.kernel,
                       window.stride, window.first});
  }
  std::vector<TrainSkip> skips;
  for (std::size_t s = 0; s < scales.size(); ++s)
    skips.push_back({input.skips[s]->picture.view(0, 0), scales[s].data(), scales_extended[s].data()});
  const ClockedLayer layer{
      .width = input.width,
      .outputs = phases.outputs(),
      .channels = phases.channels,
      .factor = phases.factor,
      .blocks = phases.blocks(),
      .blocks_per_phase = blocks_per_phase,
      .time_steps = clock.time_steps,
      .delay = clock.delay,
      .has_extended_step = clock.has_extended_step,
      .has_sign = clock.has_sign,
      .scattered = phases.scattered,
      .sources = static_cast<int>(sources.size()),
      .source = sources.data(),
      .by_columns = by_columns,
      .rows = rows,
      .pairs = pairs,
      .narrow = narrow.data(),
      .narrow_extended = narrow_extended.data(),
      .wide = wide.data(),
      .wide_extended = wide_extended.data(),
      .unit = unit.data(),
      .few = each.data(),
      .few_extended = each_extended.data(),
      .skips = static_cast<int>(skips.size()),
      .skip = skips.data(),
      .start = start.data(),
      .threshold = threshold.data(),
      .level = level.data(),
      .amplitude = amplitude.data(),
      .current = input.current ? input.current->view(0, 0) : View<const int32_t>{bias.data()},
      .spikes = trains->picture.view(),
      .residual = residual ? residual->view() : View<int32_t>{},
  };
  if (few) {
    share_rows(input.height, input.threads, [&](const auto& next) {
      for (int y; (y = next()) < input.height;) kernels.clocked_few(layer, y);
    });
    return {std::move(trains), std::move(residual)};
  }
  // by tiles, not by rows: where there are few of those, all threads are kept busy
  const int tiles = whole(input.width, tile);
  share_rows(int64_t{input.height} * tiles, input.threads, [&](const auto& next) {
    const auto room = [&](bool wanted, int64_t size) { return wanted ? static_cast<std::size_t>(size) : 0; };
    Buffer<uint32_t> numbers(room(!by_columns, list_room()));
    Buffer<int> starts(room(!by_columns, starts_room()));
    Buffer<uint16_t> places(room(by_columns, list_room())), groups(room(by_columns, starts_room()));
    Buffer<uint16_t> sums(room(by_columns, int64_t{tile} * steps * clocked_block));
    const Scratch scratch{numbers.data(), starts.data(), places.data(), groups.data(), sums.data()};
    const auto run = by_columns ? kernels.clocked_columns : kernels.clocked;
    for (int64_t i; (i = next()) < int64_t{input.height} * tiles;)
      run(layer, static_cast<int>(i / tiles), static_cast<int>(i % tiles) * tile, scratch);
  });
  return {std::move(trains), std::move(residual)};
}

}  // namespace spikingir
