// The part of the DLPack 1.x C ABI that tensor intake needs, declared by us so that no header
// of torch's is needed to build. Source: the DLPack specification, "C Exchange API".
#pragma once

#include <cstdint>

namespace nk::dlpack {

enum DeviceType : int32_t { kCPU = 1, kCUDA = 2, kCUDAHost = 3, kCUDAManaged = 13 };

enum TypeCode : uint8_t { kInt = 0, kUInt = 1, kFloat = 2, kBfloat = 4, kBool = 6 };

struct Device {
    int32_t type;
    int32_t id;
};

struct DataType {
    uint8_t code;
    uint8_t bits;
    uint16_t lanes;
};

struct Tensor {
    void* data;
    Device device;
    int32_t ndim;
    DataType dtype;
    int64_t* shape;
    int64_t* strides;
    uint64_t byte_offset;
};

struct ManagedTensorVersioned {
    struct {
        uint32_t major, minor;
    } version;
    void* manager_context;
    void (*deleter)(ManagedTensorVersioned*);
    uint64_t flags;
    Tensor tensor;
};

struct ExchangeApi {
    struct {
        uint32_t major, minor;
    } version;
    const ExchangeApi* previous;
    int (*allocate)(Tensor* prototype, ManagedTensorVersioned** out, void* error_ctx,
                    void (*set_error)(void* error_ctx, const char* kind, const char* message));
    int (*managed_from_object)(void* object, ManagedTensorVersioned** out);
    int (*managed_to_object)(ManagedTensorVersioned* tensor, void** out);
    int (*view_from_object)(void* object, Tensor* out);  // may be null
    int (*current_stream)(int32_t device_type, int32_t device_id, void** out);
};

}  // namespace nk::dlpack
