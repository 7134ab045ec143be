// What nvcc calls without defining it: vprintf, __assertfail, malloc and free.
#include <cstdio>

#include "../exec/cluster.h"
#include "../memory/access.h"
#include "../memory/heap.h"
#include "families.h"
#include "lanes.h"

namespace emu::ops {

namespace {

constexpr uint64_t kMostText = uint64_t{1} << 20;  // as much as a device keeps of a launch

// Memory as one lane sees it, byte by byte: the instruction's address register is its own.
class Reader {
  public:
    Reader(Warp& w, const Inst& i, int lane) : w_(w), i_(i), lane_(lane), all_(w.mask) { w_.mask = 1u << lane; }
    ~Reader() { w_.mask = all_; }

    char byte(uint64_t address) {
        w_.at<uint64_t>(i_.a)[lane_] = address;
        Pointers p;
        resolve(w_, i_, p);
        return *p.at[lane_];
    }
    template <class T>
    T number(uint64_t address) {
        char bytes[sizeof(T)];
        for (size_t k = 0; k < sizeof(T); ++k) bytes[k] = byte(address + k);
        T x;
        std::memcpy(&x, bytes, sizeof x);
        return x;
    }
    std::string text(uint64_t address, uint64_t most = kMostText) {
        if (address == 0) return "(null)";
        std::string s;
        for (char c; s.size() < most && (c = byte(address + s.size())) != 0;) s += c;
        return s;
    }

  private:
    Warp& w_;
    const Inst& i_;
    int lane_;
    uint32_t all_;
};

template <class T>
std::string printed(const std::string& spec, T x) {
    const int n = std::snprintf(nullptr, 0, spec.c_str(), x);
    std::string s(static_cast<size_t>(std::max(n, 0)) + 1, 0);
    std::snprintf(s.data(), s.size(), spec.c_str(), x);
    s.pop_back();
    return s;
}

// One call of printf: the host's own does each conversion. Arguments lie one after the other, aligned as in C.
class Line {
  public:
    Line(Reader& memory, uint64_t arguments) : memory_(memory), next_(arguments) {}

    int32_t count = 0;  // arguments taken

    std::string formatted(const std::string& format) {
        std::string out;
        for (size_t k = 0; k < format.size();) {
            if (format[k] != '%') {
                out += format[k++];
                continue;
            }
            size_t stop = k + 1;
            std::string spec = "%";
            while (stop < format.size() && std::strchr("-+ #0123456789.*", format[stop])) {
                if (const char c = format[stop++]; c != '*')
                    spec += c;
                else
                    star(spec);
            }
            std::string length;
            while (stop < format.size() && std::strchr("hljztL", format[stop])) length += format[stop++];
            const char conversion = stop < format.size() ? format[stop++] : 0;
            if (conversion == '%')
                out += '%';
            else if (conversion != 0 && std::strchr("diouxXcspeEfFgGaA", conversion))
                out += converted(spec, length, conversion);
            else
                out += format.substr(k, stop - k);
            k = stop;
        }
        return out;
    }

  private:
    template <class T>
    T take() {
        next_ = (next_ + sizeof(T) - 1) / sizeof(T) * sizeof(T);
        const T x = memory_.number<T>(next_);
        next_ += sizeof(T);
        ++count;
        return x;
    }

    void star(std::string& spec) {
        const auto n = take<int32_t>();
        // a precision below 0 is none at all
        if (n >= 0 || spec.back() != '.')
            spec += std::to_string(n);
        else
            spec.pop_back();
    }

    std::string converted(std::string spec, const std::string& length, char conversion) {
        switch (conversion) {
            case 'd':
            case 'i':
            case 'o':
            case 'u':
            case 'x':
            case 'X':
                if (length.empty() || length[0] == 'h') return printed(spec + length + conversion, take<int32_t>());
                return printed(spec + "ll" + conversion, take<long long>());
            case 'c':
                return printed(spec + conversion, take<int32_t>());
            case 's': {
                const size_t dot = spec.find('.');
                const uint64_t most = dot == std::string::npos ? kMostText : std::strtoull(&spec[dot + 1], nullptr, 10);
                return printed(spec + conversion, memory_.text(take<uint64_t>(), most).c_str());
            }
            case 'p':
                return printed(spec + conversion, reinterpret_cast<void*>(take<uint64_t>()));
            default:
                return printed(spec + conversion, take<double>());
        }
    }

    Reader& memory_;
    uint64_t next_;
};

// Parameter n of a call, whose words are the instruction's list.
uint64_t wide_parameter(const Warp& w, const Inst& i, size_t word, int lane) {
    const Ref* words = w.list(i);
    return uint64_t{w.at<uint32_t>(words[word + 1])[lane]} << 32 | w.at<uint32_t>(words[word])[lane];
}

void print(Warp& w, const Inst& i) {
    const Counters before = w.block->counters;  // what is read here, a device does not read
    uint32_t* result = w.at<uint32_t>(i.d);
    for_lanes(w.mask, [&](int l) {
        const uint64_t format = wide_parameter(w, i, 0, l), arguments = wide_parameter(w, i, 2, l);
        Reader memory(w, i, l);
        Line line(memory, arguments);
        if (format != 0) w.block->cluster->print(line.formatted(memory.text(format)));
        result[l] = static_cast<uint32_t>(format != 0 ? line.count : -1);
    });
    w.block->counters = before;
}

void assertion_fails(Warp& w, const Inst& i) {
    std::string first;
    const uint32_t line = 4;  // the word
    for_lanes(w.mask, [&](int l) {
        Reader memory(w, i, l);
        const std::string message = memory.text(wide_parameter(w, i, 0, l)),
                          file = memory.text(wide_parameter(w, i, 2, l)),
                          function = memory.text(wide_parameter(w, i, 5, l));
        const uint32_t at = w.at<uint32_t>(w.list(i)[line])[l], *b = w.block->id;
        const auto thread = [&](Special s) { return w.at<uint32_t>(static_cast<Ref>(s) * 128 | in_specials)[l]; };
        const std::string where = concat(file, ":", at, ": ", function);
        const std::string what = concat("Assertion `", message, "` failed.");
        std::fputs(concat(where, ": block: [", b[0], ",", b[1], ",", b[2], "], thread: [", thread(tid_x), ",",
                          thread(tid_y), ",", thread(tid_z), "] ", what, "\n")
                       .c_str(),
                   stderr);
        if (first.empty()) first = concat(what, " (", where, ")");
    });
    fail(w, i, assertion, std::countr_zero(w.mask), first);
}

void allocate(Warp& w, const Inst& i) {
    for_lanes(w.mask, [&](int l) {
        const uint64_t address = heap().allocate(wide_parameter(w, i, 0, l));
        w.at<uint32_t>(i.d)[l] = static_cast<uint32_t>(address);
        w.at<uint32_t>(i.b)[l] = static_cast<uint32_t>(address >> 32);
    });
}

void release(Warp& w, const Inst& i) {
    for_lanes(w.mask, [&](int l) {
        const uint64_t address = wide_parameter(w, i, 0, l);
        if (address != 0 && !heap().release(address))
            fail(w, i, illegal_address, l,
                 concat("frees address 0x", std::hex, address, std::dec,
                        ", which malloc did not give: ", describe(*w.block->launch, address)));
    });
}

struct SystemFunction {
    Name name;
    Run run;
    size_t results, arguments;  // words
};
constexpr SystemFunction kFunctions[] = {{"vprintf", print, 1, 4},
                                         {"__assertfail", assertion_fails, 0, 9},
                                         {"malloc", allocate, 2, 2},
                                         {"free", release, 0, 2}};

}  // namespace

bool system_call(Builder& b, Name name, const std::vector<Ref>& results, const std::vector<Ref>& arguments) {
    for (const SystemFunction& f : kFunctions) {
        if (f.name != name) continue;
        if (results.size() != f.results || arguments.size() != f.arguments)
            b.unsupported("a call whose arguments do not fit the function");
        const Ref address = b.scratch(8);
        const uint32_t list = b.add_list(arguments);
        Inst& i = b.emit(f.run, Class::control);
        i.a = address, i.list = list, i.flags = kWideAddress, i.bytes = 1;
        if (f.results > 0) i.d = results[0];
        if (f.results > 1) i.b = results[1];
        return true;
    }
    return false;
}

}  // namespace emu::ops
