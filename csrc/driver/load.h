// Loading a kernel: from machine code, or from its own PTX, which the driver compiles.
#pragma once

#include "driver/device.h"

namespace nk::driver {

// Loaded once per device; from then on it is looked up. Needs the interpreter lock, and lets go of it while it loads.
// Throws RuntimeError.
Kernel& load(const DriverTable& t, const char* op, DeviceState& d, const char* fatbin, const char* kernel);

inline Kernel& find(const DriverTable& t, const char* op, DeviceState& d, const char* fatbin, const char* kernel) {
    Kernel* known = d.find(fatbin, kernel);
    return known != nullptr ? *known : load(t, op, d, fatbin, kernel);
}

// Within its scope the thread may do what is forbidden while another one captures a graph in global mode.
class RelaxedCapture {
  public:
    explicit RelaxedCapture(const DriverTable& t) : table_(t) { table_.cuThreadExchangeStreamCaptureMode(&mode_); }
    ~RelaxedCapture() { table_.cuThreadExchangeStreamCaptureMode(&mode_); }
    RelaxedCapture(const RelaxedCapture&) = delete;
    RelaxedCapture& operator=(const RelaxedCapture&) = delete;

  private:
    const DriverTable& table_;
    CaptureMode mode_ = kCaptureRelaxed;
};

}  // namespace nk::driver
