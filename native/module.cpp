// What Python sees: layers made of NumPy arrays, spikes that stay on this side, and arrays of them on demand.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <climits>
#include <cmath>
#include <cstdlib>
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>

#include "checks.hpp"
#include "layers.hpp"
#include "paths.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace spikingir {
namespace {

template <class Number>
using Kernel = nb::ndarray<const Number, nb::ndim<4>, nb::c_contig, nb::device::cpu>;
template <class Number>
using Image = nb::ndarray<const Number, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
template <class Number>
using Vector = nb::ndarray<const Number, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

// A size as the kernels count; what is beyond them stays beyond every limit.
int size_of(std::size_t size) { return static_cast<int>(std::min<std::size_t>(size, INT_MAX)); }

template <class Number>
Weights<Number> weights_of(const Kernel<Number>& kernel) {
  if (!kernel.is_valid()) refuse("a kernel is None");
  check_equal("the width of the kernel", kernel.shape(3), kernel.shape(2));
  const int outputs = size_of(kernel.shape(0)), inputs = size_of(kernel.shape(1)), side = size_of(kernel.shape(2));
  if constexpr (std::is_floating_point_v<Number>)
    if (!std::all_of(kernel.data(), kernel.data() + kernel.size(), [](Number x) { return std::isfinite(x); }))
      refuse("a weight is not finite");
  return {kernel.data(), outputs, inputs, side};
}

// One number for each output channel.
template <class Number>
const Number* each_of(const char* what, const Vector<Number>& numbers, int outputs) {
  if (!numbers.is_valid()) refuse(std::string(what) + " is None");
  check_equal(std::string("the length of ") + what, size_of(numbers.shape(0)), outputs);
  return numbers.data();
}

template <class Number>
nb::ndarray<nb::numpy, Number> array(std::vector<std::size_t> shape) {
  std::size_t size = 1;
  for (std::size_t n : shape) size *= n;
  Number* data = new Number[size]();
  nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<Number*>(p); });
  return {data, shape.size(), shape.data(), owner};
}

// (C, H, W)
template <class Number>
nb::ndarray<nb::numpy, Number> planes(const Picture<Number>& picture, int channels) {
  check_range("the number of channels", channels, 1, picture.depth);
  auto to = array<Number>({std::size_t(channels), std::size_t(picture.height), std::size_t(picture.width)});
  Number* end = to.data();
  for (int c = 0; c < channels; ++c)
    for (int y = 0; y < picture.height; ++y)
      for (int x = 0; x < picture.width; ++x) *end++ = picture.at(y, x)[c];
  return to;
}

// (S, C, H, W) in {-1, 0, 1}
nb::ndarray<nb::numpy, int8_t> unpacked(const Trains& trains) {
  const auto& picture = trains.picture;
  auto to = array<int8_t>({std::size_t(trains.steps), std::size_t(trains.channels), std::size_t(picture.height),
                           std::size_t(picture.width)});
  const int words = picture.depth / trains.steps, blocks = words / (1 + trains.has_sign);
  for (int y = 0; y < picture.height; ++y)  // outermost: a row of words stays in the cache
    for (int step = 0; step < trains.steps; ++step)
      for (int c = 0; c < trains.channels; ++c) {
        int8_t* end = to.data() + ((std::size_t(step) * trains.channels + c) * picture.height + y) * picture.width;
        for (int x = 0; x < picture.width; ++x) {
          const uint32_t* word = picture.at(y, x) + step * words + c / clocked_block;
          const auto bit = [&](const uint32_t* w) { return static_cast<int>(*w >> c % clocked_block & 1); };
          *end++ = static_cast<int8_t>(bit(word) - (trains.has_sign ? bit(word + blocks) : 0));
        }
      }
  return to;
}

// First and last but one.
using Span = std::pair<int, int>;

// How many neurons of each channel fire at each step in a window, (S, C). A word's 32 counters are kept as planes, of
// which plane p holds bit p of each, so that all 32 are added to at once.
nb::ndarray<nb::numpy, int64_t> spikes_of_trains(const Trains& trains, Span rows, Span columns) {
  constexpr int planes = 8, most = (1 << planes) - 1;
  const auto& picture = trains.picture;
  check_window("rows", rows.first, rows.second, picture.height);
  check_window("columns", columns.first, columns.second, picture.width);
  auto to = array<int64_t>({std::size_t(trains.steps), std::size_t(trains.channels)});
  const int depth = picture.depth, words = depth / trains.steps, blocks = words / (1 + trains.has_sign);
  std::vector<uint32_t> plane(std::size_t(planes) * depth), carry(depth);
  const auto empty = [&] {
    for (int p = 0; p < planes; ++p)
      for (int i = 0; i < depth; ++i) {
        int64_t* count = to.data() + i / words * trains.channels + i % blocks * clocked_block;
        uint32_t& bits = plane[p * depth + i];
        for (; bits != 0; bits &= bits - 1) count[__builtin_ctz(bits)] += 1 << p;
      }
  };
  int added = 0;
  for (int y = rows.first; y < rows.second; ++y)
    for (int x = columns.first; x < columns.second; ++x) {
      std::copy_n(picture.at(y, x), depth, carry.data());
      for (int p = 0; p < planes; ++p)
        for (int i = 0; i < depth; ++i) {
          const uint32_t before = plane[p * depth + i];
          plane[p * depth + i] ^= carry[i];
          carry[i] &= before;
        }
      if (++added % most == 0) empty();
    }
  empty();
  return to;
}

// How many neurons of each channel fire n times in a window, whatever the sign, (most + 1, C).
template <class Picture>
nb::ndarray<nb::numpy, int64_t> histogram(const Picture& picture, int channels, int most, Span rows, Span columns) {
  check_window("rows", rows.first, rows.second, picture.height);
  check_window("columns", columns.first, columns.second, picture.width);
  auto to = array<int64_t>({std::size_t(most) + 1, std::size_t(channels)});
  for (int y = rows.first; y < rows.second; ++y)
    for (int x = columns.first; x < columns.second; ++x) {
      const auto* counts = picture.at(y, x);
      for (int c = 0; c < channels; ++c) ++to.data()[std::abs(int{counts[c]}) * channels + c];
    }
  return to;
}

template <class Spikes>
void bind_counted(nb::module_& module, const char* name) {
  nb::class_<Spikes>(module, name)
      .def("array", [](const Spikes& spikes) { return planes(spikes.picture, spikes.channels); })
      .def(
          "histogram",
          [](const Spikes& spikes, Span rows, Span columns) {
            return histogram(spikes.picture, spikes.channels, spikes.most, rows, columns);
          },
          "rows"_a, "columns"_a);
}

// A convolution's weights, stride, padding, and how large what it reads may be.
using Read = std::tuple<Kernel<int32_t>, int, int, int>;
// One on the image: weights, stride, padding, bias.
using ReadImage = std::tuple<Kernel<int32_t>, int, int, Vector<int32_t>>;

void make_integer(Integer* self, int channels, int factor, int steps, bool has_sign, bool last,
                  const std::vector<Read>& sources, const std::vector<Vector<int32_t>>& skips,
                  const std::optional<ReadImage>& image, Vector<int32_t> bias, Vector<int32_t> exponent,
                  const std::string& path) {
  check_range("the number of channels", channels, 1, most_channels);
  check_range("the factor", factor, 1, most_stride);
  const int outputs = channels * factor * factor;
  std::vector<LevelReading> readings;
  for (const auto& [weights, stride, padding, most] : sources)
    readings.push_back({{weights_of(weights), stride, padding}, most});
  std::vector<const int32_t*> scales;
  for (const auto& scale : skips) scales.push_back(each_of("a skip", scale, channels));
  ImageReading reading;
  if (image) {
    const auto& [weights, stride, padding, shift] = *image;
    reading = {{weights_of(weights), stride, padding}, each_of("the image's bias", shift, outputs)};
  }
  new (self) Integer({channels, factor, steps, has_sign, last}, readings, scales, image ? &reading : nullptr,
                     each_of("bias", bias, outputs), each_of("exponent", exponent, outputs), path);
}

nb::tuple fire_integer(const Integer& self, const std::vector<const Levels*>& sources,
                       const std::vector<const Levels*>& skips, const Pixels* image, const Current* current, int height,
                       int width, int border, int threads, bool residual) {
  IntegerFired fired;
  {
    nb::gil_scoped_release released;
    fired = self.fire({sources, skips, image, current, height, width, border, threads, residual});
  }
  const nb::object spikes = fired.levels ? nb::cast(std::move(fired.levels)) : nb::cast(std::move(fired.counts));
  return nb::make_tuple(spikes, std::move(fired.residual));
}

// A convolution's weights at the steps of the window and at the extended one, stride, padding.
using ReadTrains = std::tuple<Kernel<int32_t>, Kernel<int32_t>, int, int>;
// Scales of a skip, likewise.
using SkipTrains = std::pair<Vector<int32_t>, Vector<int32_t>>;

void make_clocked(Clocked* self, int channels, int factor, const std::vector<ReadTrains>& sources,
                  const std::vector<SkipTrains>& skips, Vector<int32_t> bias, Vector<int32_t> start,
                  Vector<int32_t> threshold, Vector<int32_t> level, Vector<int32_t> amplitude, const Clock& clock,
                  const std::string& path) {
  check_range("the number of channels", channels, 1, most_channels);
  check_range("the factor", factor, 1, most_stride);
  std::vector<TrainReading> readings;
  for (const auto& [weights, extended, stride, padding] : sources)
    readings.push_back({{weights_of(weights), stride, padding}, weights_of(extended)});
  std::vector<TrainScales> scales;
  for (const auto& [regular, extended] : skips)
    scales.push_back({each_of("a skip", regular, channels), each_of("a skip", extended, channels)});
  const Thresholds thresholds{each_of("start", start, channels), each_of("threshold", threshold, channels),
                              each_of("level", level, channels), each_of("amplitude", amplitude, channels)};
  new (self) Clocked(channels, factor, readings, scales, each_of("bias", bias, channels * factor * factor), thresholds,
                     clock, path);
}

nb::ndarray<nb::numpy, double> read_out_of(const Counts* counts, const Counts* extended, Kernel<double> weights,
                                           Kernel<double> extended_weights, std::optional<Vector<double>> bias,
                                           const Current* residual, Vector<double> grid, Vector<double> theta,
                                           double start, int most, int height, int width, bool has_sign, int threads) {
  const Weights<double> given = weights_of(weights);
  const int channels = given.outputs;
  const Readout readout{
      .counts = counts,
      .extended = extended,
      .weights = given,
      .extended_weights = weights_of(extended_weights),
      .bias = bias ? each_of("bias", *bias, channels) : nullptr,
      .residual = residual,
      .grid = each_of("grid", grid, channels),
      .theta = each_of("theta", theta, channels),
      .start = start,
      .most = most,
      .height = height,
      .width = width,
      .threads = threads,
      .has_sign = has_sign,
  };
  check_picture(height, width, channels, 0);
  auto to = array<double>({std::size_t(channels), std::size_t(height), std::size_t(width)});
  {
    nb::gil_scoped_release released;
    read_out(readout, to.data());
  }
  return to;
}

}  // namespace

NB_MODULE(_native, module) {
  module.attr("sources") = SPIKINGIR_SOURCES;
  module.def("read_out", read_out_of, "counts"_a.none(), "extended"_a.none(), "weights"_a.noconvert(),
             "extended_weights"_a.noconvert(), "bias"_a.noconvert().none(), "residual"_a.none(), "grid"_a.noconvert(),
             "theta"_a.noconvert(), "start"_a, "most"_a, "height"_a, "width"_a, "signed"_a, "threads"_a);
  module.def("paths", [] {
    std::vector<std::string> names;
    for (const Kernels& kernels : paths()) names.emplace_back(kernels.name);
    return names;
  });

  nb::class_<Current>(module, "Current")
      .def(
          "__init__",
          [](Current* self, Image<int32_t> numbers) {
            check_range("the number of channels", size_of(numbers.shape(0)), 1, most_channels);
            check_picture(numbers.shape(1), numbers.shape(2), numbers.shape(0), 0);
            new (self) Current(size_of(numbers.shape(1)), size_of(numbers.shape(2)), size_of(numbers.shape(0)), 0);
            const int32_t* from = numbers.data();
            for (int c = 0; c < self->depth; ++c)
              for (int y = 0; y < self->height; ++y)
                for (int x = 0; x < self->width; ++x) self->at(y, x)[c] = *from++;
          },
          "numbers"_a.noconvert())
      .def("array", planes<int32_t>, "channels"_a);
  bind_counted<Counts>(module, "Counts");
  bind_counted<Levels>(module, "Levels");
  nb::class_<Pixels>(module, "Pixels")
      .def(
          "__init__",
          [](Pixels* self, Image<double> numbers, int bits, int border) {
            check_range("the number of channels", size_of(numbers.shape(0)), 1, most_channels);
            check_range("the number of bits", bits, image_digit, Pixels::most_bits);
            check_picture(numbers.shape(1), numbers.shape(2), numbers.shape(0), border);
            const auto size = [&](int axis) { return size_of(numbers.shape(axis)); };
            new (self) Pixels(numbers.data(), size(0), size(1), size(2), bits, border);
          },
          "numbers"_a.noconvert(), "bits"_a, "border"_a);
  nb::class_<Trains>(module, "Trains")
      .def("array", unpacked)
      .def("spikes", spikes_of_trains, "rows"_a, "columns"_a)
      .def(
          "counts",
          [](const Trains& trains, Span steps) {
            check_window("steps", steps.first, steps.second, trains.steps);
            return std::make_unique<Counts>(trains, steps.first, steps.second);
          },
          "steps"_a);

  nb::class_<Clock>(module, "Clock")
      .def(nb::init<int, int, bool, bool>(), "time_steps"_a, "delay"_a, "extended"_a, "signed"_a);

  nb::class_<Analog>(module, "Analog")
      .def(
          "__init__",
          [](Analog* self, Kernel<double> weights, Vector<double> bias, Vector<int32_t> after,
             const std::string& path) {
            const auto given = weights_of(weights);
            new (self)
                Analog(given, each_of("bias", bias, given.outputs), each_of("after", after, given.outputs), path);
          },
          "weights"_a.noconvert(), "bias"_a.noconvert(), "after"_a.noconvert(), "path"_a)
      .def(
          "run",
          [](const Analog& self, Image<double> image, int threads) {
            nb::gil_scoped_release released;
            return self.run(image.data(), size_of(image.shape(0)), size_of(image.shape(1)), size_of(image.shape(2)),
                            threads);
          },
          "image"_a.noconvert(), "threads"_a);

  nb::class_<Phased> phased(module, "Phased");
  phased.def(
      "__init__",
      [](Phased* self, Kernel<int32_t> weights, const std::vector<int>& channels, Vector<int32_t> bias,
         Vector<int32_t> exponent, const Clock& clock, const std::string& path) {
        const auto given = weights_of(weights);
        new (self) Phased(given, channels, each_of("bias", bias, given.outputs),
                          each_of("exponent", exponent, given.outputs), clock, path);
      },
      "weights"_a.noconvert(), "channels"_a, "bias"_a.noconvert(), "exponent"_a.noconvert(), "clock"_a, "path"_a);
  phased.def(
      "fire",
      [](const Phased& self, const std::vector<const Counts*>& sources, const Current* current, int height, int width,
         int border, int threads, bool residual) {
        nb::gil_scoped_release released;
        return self.fire({sources, current, height, width, border, threads, residual});
      },
      "sources"_a, "current"_a.none(), "height"_a, "width"_a, "border"_a, "threads"_a, "residual"_a);

  nb::class_<Integer>(module, "Integer")
      .def("__init__", make_integer, "channels"_a, "factor"_a, "steps"_a, "signed"_a, "last"_a, "sources"_a.noconvert(),
           "skips"_a.noconvert(), "image"_a.noconvert().none(), "bias"_a.noconvert(), "exponent"_a.noconvert(),
           "path"_a)
      .def("takes", &Integer::takes, "image"_a)
      .def_prop_ro("current_order", &Integer::current_order)
      .def("fire", fire_integer, "sources"_a, "skips"_a, "image"_a.none(), "current"_a.none(), "height"_a, "width"_a,
           "border"_a, "threads"_a, "residual"_a);

  nb::class_<Clocked>(module, "Clocked")
      .def("__init__", make_clocked, "channels"_a, "factor"_a, "sources"_a.noconvert(), "skips"_a.noconvert(),
           "bias"_a.noconvert(), "start"_a.noconvert(), "threshold"_a.noconvert(), "level"_a.noconvert(),
           "amplitude"_a.noconvert(), "clock"_a, "path"_a)
      .def_prop_ro("current_order", &Clocked::current_order)
      .def_prop_ro("by_columns", &Clocked::is_by_columns)
      .def(
          "fire",
          [](const Clocked& self, const std::vector<const Trains*>& sources, const std::vector<const Trains*>& skips,
             const Current* current, int height, int width, int border, int threads, bool residual) {
            nb::gil_scoped_release released;
            return self.fire({sources, skips, current, height, width, border, threads, residual});
          },
          "sources"_a, "skips"_a, "current"_a.none(), "height"_a, "width"_a, "border"_a, "threads"_a, "residual"_a);
}

}  // namespace spikingir
