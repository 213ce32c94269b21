/// Bins of equal width from a time on.
struct Bins: Sendable, Equatable {
    var fromMs: Int64
    var widthMs: Int64

    /// Bins for a stretch of time: of a minute, doubled until there are no more of them than `limit`.
    init(fromMs: Int64, throughMs: Int64, limit: Int) {
        self.fromMs = fromMs
        widthMs = 60_000
        while (throughMs - fromMs) / widthMs > Int64(limit) { widthMs *= 2 }
    }

    /// The bin of a time: each is open at its left end and closed at its right; nil before the first.
    func index(of atMs: Int64) -> Int? { atMs > fromMs ? Int((atMs - fromMs - 1) / widthMs) : nil }

    /// The first bin that begins at a time or after it.
    func firstIndex(from atMs: Int64) -> Int { max(0, Int((atMs - fromMs + widthMs - 1) / widthMs)) }

    /// How many bins are over at a time.
    func complete(atMs: Int64) -> Int { max(0, Int((atMs - fromMs) / widthMs)) }

    func startMs(_ index: Int) -> Int64 { fromMs + Int64(index) * widthMs }

    /// Says the bin of one time after another, most of which are in the bin of the one before or in the next.
    struct Cursor {
        private let bins: Bins
        /// -1 before the first bin.
        private var index = -1
        /// The end of the bin that was named last; where there was none, the start of the first.
        private(set) var endMs: Int64

        init(_ bins: Bins) {
            self.bins = bins
            endMs = bins.fromMs
        }

        /// As ``Bins/index(of:)``, without a division where the time is near the last one.
        @inline(__always)
        mutating func index(of atMs: Int64) -> Int? {
            if atMs > endMs, atMs - endMs <= bins.widthMs {
                index += 1
                endMs += bins.widthMs
            } else if atMs > endMs || atMs <= endMs - bins.widthMs {
                index = bins.index(of: atMs) ?? -1
                endMs = bins.startMs(index + 1)
            }
            return index >= 0 ? index : nil
        }
    }

    /// How many bins a length of time has, at least one.
    func count(ms: Int64) -> Int { max(1, Int((ms + widthMs / 2) / widthMs)) }
}
