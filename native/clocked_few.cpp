// The clocked schedule for few output channels: a vector's lanes are time steps.
//
// Rows of 32 weights would be nearly empty. Instead, a source's words of a pixel, step after step, are compared bit by
// bit: a weight is added at once to all the steps at which its channel fired. Density does not matter.
#include "clocked.hpp"

namespace spikingir::SPIKINGIR_PATH {

namespace {

static_assert(lanes <= most_lanes && few_outputs <= lanes);

inline Ints count_up() {
  Ints numbers{};
  for (int i = 0; i < lanes; ++i) numbers[i] = i;
  return numbers;
}

// What the neurons of a pixel see, at as many steps as a vector has lanes.
template <int outputs>
struct Reads {
  const ClockedLayer& layer;
  int y, x;
  int32_t sums[lanes][lanes];  // [step][output]

  // Steps come one after the other.
  [[gnu::always_inline]] void add(Ints (&v)[1], int step) {
    if (step % lanes == 0) {
      if (layer.has_extended_step && step + lanes > layer.time_steps)
        collect<true>(step);
      else
        collect<false>(step);
    }
    v[0] += load<Ints>(sums[step % lanes]);
  }

  // Where the extended step is among those from `first` on, it has weights of its own.
  template <bool with_extended>
  void collect(int first) {
    const Ints is_extended = (Ints{} + (layer.time_steps - first)) == count_up();
    const int32_t *weight = layer.few, *extended = layer.few_extended;
    Ints sum[outputs]{};
    for (int s = 0; s < layer.sources; ++s) {
      const TrainSource& source = layer.source[s];
      for (int dy = 0; dy < source.kernel; ++dy)
        for (int dx = 0; dx < source.kernel; ++dx) {
          const Ints words = load<Ints>(source.view.at(y * source.stride + dy, x * source.stride + dx) + first);
          Ints bit = Ints{} + 1;
          for (int c = 0; c < source.channels; ++c, bit <<= 1, weight += outputs, extended += outputs) {
            const Ints fired = (words & bit) != 0;
            for (int o = 0; o < outputs; ++o) {
              Ints each = Ints{} + weight[o];
              if (with_extended) each = is_extended ? Ints{} + extended[o] : each;
              sum[o] += each & fired;
            }
          }
        }
    }
    for (int o = 0; o < outputs; ++o)
      for (int i = 0; i < lanes; ++i) sums[i][o] = sum[o][i];
  }
};

template <int outputs>
void fire_row(const ClockedLayer& layer, int y) {
  for (int x = 0; x < layer.width; ++x) fire_pixel<1, 1>(layer, y, x, 0, Reads<outputs>{layer, y, x, {}});
}

}  // namespace

void clocked_few_row(const ClockedLayer& layer, int y) {
  switch (layer.outputs) {
    case 1:
      return fire_row<1>(layer, y);
    case 2:
      return fire_row<2>(layer, y);
    case 3:
      return fire_row<3>(layer, y);
    default:
      return fire_row<few_outputs>(layer, y);
  }
}

}  // namespace spikingir::SPIKINGIR_PATH
