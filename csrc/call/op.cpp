// An op as the user calls it: from the call to the kernel and back through autograd in C, for each frame of Python that
// this saves costs as much as a kernel does on thousands of elements. core/op.py makes ops of their entries, and has
// the long way, for whatever is unusual.
#include <pybind11/stl.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "call/bind.h"
#include "call/guards.h"
#include "call/kernel_entry.h"
#include "call/torch_state.h"
#include "context/context.h"

namespace nk {

namespace {

constexpr const char* kCapsule = "neurokern.op";
constexpr Py_ssize_t kMost = 48;  // arguments of a kernel

struct Words {
    PyObject* const to_save = PyUnicode_InternFromString("to_save");  // what save_for_backward sets
    PyObject* const saved = PyUnicode_InternFromString("saved_tensors");
    PyObject* const spec = PyUnicode_InternFromString("spec");
    PyObject* const function = PyUnicode_InternFromString("_forward_cls");
    PyObject* const backward = PyUnicode_InternFromString("backward");
    PyObject* const needs = PyUnicode_InternFromString("needs_input_grad");
    PyObject* const dirty = PyUnicode_InternFromString("dirty_tensors");  // what mark_dirty sets
    PyObject* const constant = PyUnicode_InternFromString("non_differentiable");
    PyObject* const materialize = PyUnicode_InternFromString("materialize_grads");
};

const Words& words() {
    static const Words w;
    return w;
}

// An error that is under way is a kernel's, and no hook's or mode's of the user, which autograd calls around it.
thread_local bool refused = false;

// One tensor that the gradient needs: an argument or an output, unless none of the arguments in `for_any` wants one.
struct Save {
    bool output;
    int index;
    uint64_t for_any;
};

struct Op {
    std::string name, title, module;
    std::vector<std::string> argument_texts;
    std::vector<const char*> argument_names;
    Names names, backward_names;
    std::vector<const char*> backward_argument_names;
    const KernelEntry* forward = nullptr;
    const KernelEntry* backward = nullptr;  // null: the Function's own
    Py_ssize_t tensors = 0;                 // the first arguments; parameters follow
    Py_ssize_t parameters = 0;
    int outputs = 1, returns = 1;  // of a recorded call: all, and those that the user is given
    int attached = 0;              // those behind them that stay in autograd's graph, for second derivatives
    uint64_t constants = 0;        // outputs without a gradient
    std::vector<Save> saves;
    bool keeps = false;   // a recorded call returns one thing more, which goes to backward behind the parameters
    bool wants = false;   // backward is told at last which arguments want a gradient
    bool writes = false;  // to its first tensor, which it returns
    py::object otherwise, apply;
    py::object autocast;                // (*tensors) -> the tensors as autocast has them; None: as they are
    py::str forward_row, backward_row;  // in torch's profiler: as the registered ops are called
    std::string doc;
    PyMethodDef method{};
    mutable Seen arguments, gradients;

    bool fits(Py_ssize_t count) const { return count == tensors + parameters; }
};

py::object call_kernel(const KernelEntry& kernel, const Names& names, PyObject* const* arguments, Py_ssize_t count,
                       bool recorded, const py::str& row) {
    try {
        if (is_profiled()) {
            const Profiled profiled(row.ptr(), arguments, count);
            return kernel(names, arguments, count, recorded);
        }
        return kernel(names, arguments, count, recorded);
    } catch (...) {
        refused = true;
        set_python_error();
    }
    throw py::error_already_set();
}

PyObject* const* items(const py::handle& tuple) { return reinterpret_cast<PyTupleObject*>(tuple.ptr())->ob_item; }

py::object tuple_of(PyObject* const* begin, Py_ssize_t count) {
    py::object made = checked(PyTuple_New(count));
    for (Py_ssize_t i = 0; i < count; ++i) PyTuple_SET_ITEM(made.ptr(), i, Py_NewRef(begin[i]));
    return made;
}

void set(PyObject* object, PyObject* name, const py::object& value) {
    if (PyObject_SetAttr(object, name, value.ptr()) < 0) throw py::error_already_set();
}

// The parameters of the call that is under way: autograd charges for each argument that it hands to forward.
struct Parameters {
    PyObject* const* begin = nullptr;
    Py_ssize_t count = 0;
};
thread_local Parameters under_way;

struct UnderWay {
    explicit UnderWay(Parameters p) { under_way = p; }
    ~UnderWay() { under_way = {}; }  // also where autograd fails before it comes to forward
};

uint64_t wanted(PyObject* needs) {
    uint64_t mask = 0;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(needs); ++i)
        mask |= uint64_t{PyTuple_GET_ITEM(needs, i) == Py_True} << i;
    return mask;
}

// forward(ctx, *tensors), less the last ones that are None
py::object forward(const Op& op, PyObject* const* given, Py_ssize_t count) {
    PyObject *const ctx = given[0], *arguments[kMost];
    PyObject** end = std::fill_n(std::copy(given + 1, given + count, arguments), op.tensors - (count - 1), Py_None);
    const Parameters more = std::exchange(under_way, {});
    end = std::copy(more.begin, more.begin + more.count, end);
    const py::object made = call_kernel(*op.forward, op.names, arguments, end - arguments, true, op.forward_row);
    const bool one = op.outputs + op.keeps == 1;
    PyObject* const only = made.ptr();
    PyObject* const* out = one ? &only : items(made);

    uint64_t needs = ~uint64_t{0};
    for (const Save& s : op.saves)
        if (s.for_any != 0) {
            needs = wanted(checked(PyObject_GetAttr(ctx, words().needs)).ptr());
            break;
        }
    PyObject* save[kMost];
    PyObject** save_end = save;
    for (const Save& s : op.saves)
        *save_end++ = s.for_any != 0 && (s.for_any & needs) == 0 ? Py_None
                      : s.output                                 ? out[s.index]
                                                                 : arguments[s.index];
    set(ctx, words().to_save, tuple_of(save, save_end - save));
    PyObject* spec[kMost];
    PyObject** spec_end = std::copy(more.begin, more.begin + more.count, spec);
    if (op.keeps) *spec_end++ = out[op.outputs];
    const py::object block = context::captured();
    *spec_end++ = block.ptr();
    set(ctx, words().spec, tuple_of(spec, spec_end - spec));
    if (op.writes) set(ctx, words().dirty, tuple_of(arguments, 1));
    if (op.constants != 0) {
        PyObject* constant[kMost];
        PyObject** constant_end = constant;
        for (int i = 0; i < op.returns; ++i)
            if (op.constants >> i & 1) *constant_end++ = out[i];
        set(ctx, words().constant, tuple_of(constant, constant_end - constant));
    }
    if (op.attached != 0) set(ctx, words().materialize, py::bool_(false));  // their gradient is None as a rule
    const int of_node = op.returns + op.attached;
    return of_node == 1 ? py::reinterpret_borrow<py::object>(out[0]) : tuple_of(out, of_node);
}

// Of what autograd's Function returned, what the user is given.
py::object given_of(const Op& op, py::object made) {
    if (op.attached == 0) return made;
    return op.returns == 1 ? py::reinterpret_borrow<py::object>(items(made)[0]) : tuple_of(items(made), op.returns);
}

// Whether the kernel has use for these gradients: one for each output given, none for those that are attached.
bool is_usual(const Op& op, PyObject* const* g) {
    if (op.attached == 0) return true;
    return std::find(g, g + op.returns, Py_None) == g + op.returns &&
           std::count(g + op.returns, g + op.returns + op.attached, Py_None) == op.attached;
}

// Whether the common way fits these tensors; wants: one of them requires a gradient.
bool is_common(Seen& seen, bool autocasts, PyObject* const* tensors, Py_ssize_t count, bool& wants) {
    if (seen.again(tensors, count, wants)) return true;
    wants = false;
    for (Py_ssize_t i = 0; i < count; ++i) {
        if (tensors[i] == Py_None) continue;
        if (!is_plain(tensors[i])) return false;
        wants = wants || requires_grad(tensors[i]);
    }
    if (is_watched()) return false;
    if (is_autocasting()) return !autocasts;
    seen.keep(tensors, count, wants);
    return true;
}

// Whether it is autocast alone that keeps these tensors from the common way.
bool is_autocast_alone(PyObject* const* tensors, Py_ssize_t count) {
    const auto fits = [](PyObject* t) { return t == Py_None || is_plain(t); };
    return is_autocasting() && std::all_of(tensors, tensors + count, fits) && !is_watched();
}

// apply(ctx, *g): the Function's own backward where the gradient is to have a graph, somebody watches, or something is
// no plain tensor, be it that a hook unpacked it.
py::object backward(const Op& op, PyObject* const* given, Py_ssize_t count) {
    PyObject* const ctx = given[0];
    if (op.backward != nullptr && !is_grad_enabled() && is_usual(op, given + 1)) {
        const py::object saved = checked(PyObject_GetAttr(ctx, words().saved));
        const Py_ssize_t kept = PyTuple_GET_SIZE(saved.ptr());
        PyObject* arguments[kMost];
        PyObject** end = std::copy(given + 1, given + 1 + op.returns, arguments);
        end = std::copy(items(saved), items(saved) + kept, end);
        bool wants = false;
        if (is_common(op.gradients, false, arguments, end - arguments, wants)) {
            const py::object spec = checked(PyObject_GetAttr(ctx, words().spec));
            PyObject* const* const block = items(spec) + PyTuple_GET_SIZE(spec.ptr()) - 1;
            end = std::copy(items(spec), block, end);
            const context::Adopted adopted(*block == Py_None ? nullptr : *block);
            py::object needs;
            if (op.wants) *end++ = (needs = checked(PyObject_GetAttr(ctx, words().needs))).ptr();
            try {
                py::object made =
                    call_kernel(*op.backward, op.backward_names, arguments, end - arguments, false, op.backward_row);
                if (made.ptr() != Py_NotImplemented) return made;
            } catch (py::error_already_set& e) {
                refused = false;
                if (!e.matches(PyExc_RuntimeError)) throw;  // refused: torch's batch of gradients, for one
            }
        }
    }
    const py::object function = checked(PyObject_GetAttr(ctx, words().function));
    const py::object method = checked(PyObject_GetAttr(function.ptr(), words().backward));
    return checked(PyObject_Vectorcall(method.ptr(), given, count, nullptr));
}

py::object otherwise(const Op& op, PyObject* const* arguments, Py_ssize_t count) {
    return checked(PyObject_Vectorcall(op.otherwise.ptr(), arguments, count, nullptr));
}

// call(*tensors, *parameters)
py::object call(const Op& op, PyObject* const* arguments, Py_ssize_t count) {
    bool wants = false;
    const bool autocasts = !op.autocast.is_none();
    py::object cast;
    PyObject* with_cast[kMost];
    if (!is_common(op.arguments, autocasts, arguments, op.tensors, wants)) {
        if (!autocasts || !is_autocast_alone(arguments, op.tensors)) return otherwise(op, arguments, count);
        cast = checked(PyObject_Vectorcall(op.autocast.ptr(), arguments, op.tensors, nullptr));
        std::copy(arguments + op.tensors, arguments + count, std::copy_n(items(cast), op.tensors, with_cast));
        arguments = with_cast;
        if (!is_common(op.arguments, false, arguments, op.tensors, wants)) return otherwise(op, arguments, count);
    }
    wants = wants && is_grad_enabled();
    if (op.writes && (is_inference(arguments[0]) || (wants && (is_leaf(arguments[0]) || is_view(arguments[0])))))
        return otherwise(op, arguments, count);
    if (wants && op.apply.is_none()) return otherwise(op, arguments, count);
    try {
        if (!wants) {
            py::object y = call_kernel(*op.forward, op.names, arguments, count, false, op.forward_row);
            if (op.writes) increment_version(arguments[0]);  // so that autograd notices when something saved it
            return y;
        }
        const UnderWay parameters({arguments + op.tensors, count - op.tensors});
        Py_ssize_t given = op.tensors;  // autograd looks long at a None
        while (given > 1 && arguments[given - 1] == Py_None) --given;
        return given_of(op, checked(PyObject_Vectorcall(op.apply.ptr(), arguments, given, nullptr)));
    } catch (py::error_already_set& e) {
        if (!std::exchange(refused, false)) throw;
        // the long way explains, or goes to torch
        for (PyObject* refusal :
             {PyExc_RuntimeError, PyExc_TypeError, PyExc_IndexError, PyExc_ValueError, PyExc_OverflowError})
            if (e.matches(refusal)) return otherwise(op, arguments, count);
        throw;
    }
}

using Body = py::object (*)(const Op&, PyObject* const*, Py_ssize_t);

template <Body body>
PyObject* entry(PyObject* self, PyObject* const* arguments, Py_ssize_t count) noexcept {
    try {
        const auto* op = static_cast<const Op*>(PyCapsule_GetPointer(self, kCapsule));
        if (op == nullptr) return nullptr;
        const bool fits = body == &call      ? op->fits(count)
                          : body == &forward ? count >= 2 && count <= 1 + op->tensors
                                             : count == 1 + op->returns + op->attached;
        if (!fits)
            return PyErr_Format(PyExc_TypeError, "neurokern.%s: %zd arguments do not fit this op", op->name.c_str(),
                                count);
        return body(*op, arguments, count).release().ptr();
    } catch (...) {
        set_python_error();
    }
    return nullptr;
}

template <Body body>
PyCFunction c_function() {
    return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&entry<body>));
}

template <Body body>
py::object function(const char* name, const py::object& self) {
    static PyMethodDef method = {name, c_function<body>(), METH_FASTCALL, nullptr};
    return checked(PyCFunction_New(&method, self.ptr()));
}

std::vector<const char*> c_strings(const std::vector<std::string>& texts) {
    std::vector<const char*> made;
    for (const std::string& t : texts) made.push_back(t.c_str());
    return made;
}

py::tuple make_op(std::string name, std::string title, const std::string& module, const std::string& forward_kernel,
                  const std::string& backward_kernel, std::vector<std::string> arguments, int tensors, int outputs,
                  int returns, int attached, uint64_t constants,
                  const std::vector<std::tuple<bool, int, uint64_t>>& saves, bool keeps, bool wants, bool writes,
                  int label, py::object otherwise_, py::object autocast) {
    auto* op = new Op;
    op->name = std::move(name), op->title = std::move(title), op->module = module;
    op->argument_texts = std::move(arguments);
    op->argument_names = c_strings(op->argument_texts);
    op->names = {op->title.c_str(), op->argument_names.data()};
    KernelEntry& forward_entry = kernel_entry(forward_kernel);
    forward_entry.label = label;
    op->forward = &forward_entry;
    if (!backward_kernel.empty()) {
        KernelEntry& backward_entry = kernel_entry(backward_kernel);
        if (label >= 0) backward_entry.label = returns + static_cast<int>(saves.size()) + label - tensors;
        op->backward = &backward_entry;
        op->backward_names = {op->title.c_str(), op->backward->names.arguments};
    }
    op->tensors = tensors, op->parameters = static_cast<Py_ssize_t>(op->argument_names.size()) - tensors;
    op->outputs = outputs, op->returns = returns, op->attached = attached, op->constants = constants;
    for (const auto& [output, index, for_any] : saves) op->saves.push_back({output, index, for_any});
    op->keeps = keeps, op->wants = wants, op->writes = writes;
    op->otherwise = std::move(otherwise_), op->autocast = std::move(autocast);
    op->forward_row = py::str("neurokern::" + op->name), op->backward_row = py::str("neurokern::" + backward_kernel);
    op->apply = py::none();
    if (op->argument_names.size() + 8 > kMost || op->saves.size() + op->argument_names.size() + 8 > kMost)
        throw std::invalid_argument("neurokern." + op->name + ": more arguments than an op may have");
    if (op->forward->arguments.size() < op->argument_names.size())
        throw std::invalid_argument("neurokern." + op->name + ": the kernel entry is " + op->forward->signature);

    const py::capsule self(op, kCapsule,
                           [](PyObject* o) { delete static_cast<Op*>(PyCapsule_GetPointer(o, kCapsule)); });
    op->doc = op->name + "(";  // as inspect.signature reads it
    for (const char* a : op->argument_names) op->doc += std::string(a) + ", ";
    op->doc += "/)\n--\n\n";
    op->method = {op->name.c_str(), c_function<&call>(), METH_FASTCALL, op->doc.c_str()};
    const py::str home(op->module);
    const py::object made = checked(PyCFunction_NewEx(&op->method, self.ptr(), home.ptr()));
    const auto set_apply = py::cpp_function([op, self](py::object apply) { op->apply = std::move(apply); });
    return py::make_tuple(made, function<&forward>("forward", self),
                          // as an attribute of a class, only an instancemethod passes the instance on
                          checked(PyInstanceMethod_New(function<&backward>("apply", self).ptr())), set_apply);
}

}  // namespace

void register_op(py::handle module) {
    auto m = py::reinterpret_borrow<py::module_>(module);
    using py::arg;
    m.def("make_op", &make_op, arg("name"), arg("title"), arg("module"), arg("forward"), arg("backward"),
          arg("arguments"), arg("tensors"), arg("outputs"), arg("returns"), arg("attached"), arg("constants"),
          arg("saves"), arg("keeps"), arg("wants"), arg("writes"), arg("label"), arg("otherwise"), arg("autocast"),
          "(call, forward, apply, set_apply) of an op: what the user calls, a torch.autograd.Function's forward, its "
          "context's apply, and what tells `call` the Function's apply. See neurokern.core.op.");
}

}  // namespace nk
