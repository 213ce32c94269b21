import Series

/// What was appended since the last flush, as the bytes of a journal row.
///
/// Layout in `docs/storage-format.md`. A row of a scrape is a time and a token for each series, the same tokens that the
/// series' streams get: what reads them back needs the streams that were there before.
struct JournalWriter {
    enum Record {
        static let series: UInt64 = 1
        static let layout: UInt64 = 2
        static let row: UInt64 = 3
        static let samples: UInt64 = 4
    }

    private(set) var bytes: [UInt8] = []
    /// Samples that the bytes hold.
    private(set) var samples = 0
    /// The series of each source's last row, for as long as the generation lasts.
    private var layouts: [Int: [SeriesID]] = [:]
    private var lastMs: Int64 = 0
    private var sameRun: UInt64 = 0
    private var skipRun: UInt64 = 0

    /// Gives the bytes away; what they say goes on.
    mutating func take() -> (bytes: [UInt8], samples: Int) {
        defer {
            bytes = []
            samples = 0
        }
        return (bytes, samples)
    }

    /// Begins a new generation, whose first record knows of nothing.
    mutating func startOver() {
        layouts = [:]
        lastMs = 0
    }

    mutating func series(place: UInt32, _ labels: Labels) {
        Varint.append(Record.series, to: &bytes)
        Varint.append(UInt64(place), to: &bytes)
        Varint.append(UInt64(labels.pairs.count), to: &bytes)
        for label in labels.pairs {
            append(label.name)
            append(label.value)
        }
    }

    private mutating func append(_ text: String) {
        Varint.append(UInt64(text.utf8.count), to: &bytes)
        bytes.append(contentsOf: text.utf8)
    }

    /// Begins a row, whose tokens follow in the order of the series.
    ///
    /// - Parameter place: a series' place in the file; nil for one that is gone.
    mutating func beginRow(source: Int, _ ids: [SeriesID], atMs: Int64, place: (SeriesID) -> UInt32?) {
        // The same array again is found equal without a look at what is in it.
        if layouts[source] != ids {
            layouts[source] = ids
            Varint.append(Record.layout, to: &bytes)
            Varint.append(UInt64(source), to: &bytes)
            Varint.append(UInt64(ids.count), to: &bytes)
            var last: Int64 = 0
            for id in ids {
                let next = place(id).map { Int64($0) } ?? Int64(UInt32.max)
                Varint.append(Varint.zigzag(next - last), to: &bytes)
                last = next
            }
        }
        Varint.append(Record.row, to: &bytes)
        Varint.append(UInt64(source), to: &bytes)
        time(atMs)
        bytes.reserveCapacity(bytes.count + ids.count)
    }

    /// Begins samples with times of their own, of which each is a ``sample(place:atMs:)`` and a token.
    mutating func beginSamples(_ count: Int) {
        Varint.append(Record.samples, to: &bytes)
        Varint.append(UInt64(count), to: &bytes)
    }

    mutating func sample(place: UInt32, atMs: Int64) {
        Varint.append(UInt64(place), to: &bytes)
        time(atMs)
    }

    private mutating func time(_ atMs: Int64) {
        Varint.append(Varint.zigzag(atMs &- lastMs), to: &bytes)
        lastMs = atMs
    }

    @inline(__always)
    mutating func token(_ written: Heads.Written) {
        samples += 1
        if skipRun > 0 { endRun() }
        switch written {
        case .same: sameRun += 1
        case .token(let token):
            if sameRun > 0 { endRun() }
            bytes.append(contentsOf: token)
        }
    }

    /// In the place of a token: the row has no sample of the series.
    mutating func skip() {
        if sameRun > 0 { endRun() }
        skipRun += 1
    }

    /// Ends a row or a sample.
    mutating func endRun() {
        if sameRun > 0 { Varint.append((sameRun - 1) << 3 | ValueState.repeats << 1 | 1, to: &bytes) }
        if skipRun > 0 { Varint.append((skipRun - 1) << 3 | ValueState.gap << 1 | 1, to: &bytes) }
        sameRun = 0
        skipRun = 0
    }
}

/// Reads a generation's journal rows back, in their order.
struct JournalReader {
    let heads = Heads()
    private let zstd = ZstdDecompressor()
    private var layouts: [Int: [UInt32]] = [:]
    private var lastMs: Int64 = 0

    /// Reads a row of the table `journal`.
    ///
    /// - Parameter bucket: what the file has of a bucket, of which a series that sleeps has samples here; nil where that
    ///   can't be read.
    mutating func read(
        row bytes: [UInt8], _ index: inout SeriesIndex, _ newest: Slabs<Int64>, bucket: (Int) -> SavedBucket?
    ) throws(BlockCodec.CorruptBlock) {
        // A flush holds at most what was appended in a second or waited for room.
        let plain = try zstd.decompress(bytes, most: 1 << 30)
        try plain.withRawBytes { (bytes) throws(BlockCodec.CorruptBlock) in
            try read(plain: bytes, &index, newest, bucket: bucket)
        }
    }

    mutating func read(
        plain: UnsafeRawBufferPointer, _ index: inout SeriesIndex, _ newest: Slabs<Int64>, bucket: (Int) -> SavedBucket?
    ) throws(BlockCodec.CorruptBlock) {
        var cursor = ByteCursor(plain)
        while !cursor.isAtEnd {
            switch try cursor.varint() {
            case JournalWriter.Record.series: try series(&cursor, &index, newest, bucket)
            case JournalWriter.Record.layout:
                let source = try number(&cursor)
                var places: [UInt32] = []
                var last: Int64 = 0
                for _ in 0..<(try cursor.count()) {
                    last = last &+ Varint.unzigzag(try cursor.varint())
                    guard let place = UInt32(exactly: last) else { throw BlockCodec.CorruptBlock() }
                    try wake(place, &index, newest, bucket)
                    places.append(place)
                }
                layouts[source] = places
            case JournalWriter.Record.row: try row(&cursor, index, newest)
            case JournalWriter.Record.samples:
                for _ in 0..<(try cursor.count(each: 3)) { try sample(&cursor, &index, newest, bucket) }
            default: throw BlockCodec.CorruptBlock()
            }
        }
    }

    private func number(_ cursor: inout ByteCursor) throws(BlockCodec.CorruptBlock) -> Int {
        let value = try cursor.varint()
        // So many sources no store had at a time: a larger number is a damaged one, and must not take memory.
        guard value < 1 << 24 else { throw BlockCodec.CorruptBlock() }
        return Int(value)
    }

    /// Takes the series of a bucket back in, if the one at a place sleeps.
    private func wake(
        _ place: UInt32, _ index: inout SeriesIndex, _ newest: Slabs<Int64>, _ bucket: (Int) -> SavedBucket?
    ) throws(BlockCodec.CorruptBlock) {
        guard index.isAsleep(place) else { return }
        guard let saved = bucket(SeriesIndex.bucket(ofPlace: place)) else { throw BlockCodec.CorruptBlock() }
        index.wake(saved, newest)
        guard !index.isAsleep(place) else { throw BlockCodec.CorruptBlock() }
    }

    private func series(
        _ cursor: inout ByteCursor, _ index: inout SeriesIndex, _ newest: Slabs<Int64>, _ bucket: (Int) -> SavedBucket?
    ) throws(BlockCodec.CorruptBlock) {
        let place = try cursor.varint()
        guard place < UInt64(UInt32.max) else { throw BlockCodec.CorruptBlock() }
        try wake(UInt32(place), &index, newest, bucket)
        var pairs: [Label] = []
        for _ in 0..<(try cursor.count(each: 2)) { pairs.append(Label(try text(&cursor), try text(&cursor))) }
        guard index.load(Labels(sorted: pairs), place: UInt32(place), isSaved: false) else {
            throw BlockCodec.CorruptBlock()
        }
    }

    private func text(_ cursor: inout ByteCursor) throws(BlockCodec.CorruptBlock) -> String {
        String(decoding: try cursor.slice(try cursor.count()), as: UTF8.self)
    }

    private mutating func row(
        _ cursor: inout ByteCursor, _ index: SeriesIndex, _ newest: Slabs<Int64>
    ) throws(BlockCodec.CorruptBlock) {
        let source = try number(&cursor)
        guard let places = layouts[source] else { throw BlockCodec.CorruptBlock() }
        let atMs = try time(&cursor)
        guard let number = heads.row(of: source, atMs: atMs) else { throw BlockCodec.CorruptBlock() }
        let row = (source: source, number: number)
        var at = 0
        while at < places.count {
            guard let series = index.series(atPlace: places[at]) else {
                // Of a series that is gone there can only be skips.
                var state = ValueState()
                guard case .gap(let count) = try state.read(&cursor), count <= places.count - at else {
                    throw BlockCodec.CorruptBlock()
                }
                at += count
                continue
            }
            var state = heads.head(series).state
            switch try state.read(&cursor) {
            case .value:
                try append(series, in: row, atMs, state.bits, newest)
                at += 1
            case .repeats(let count):
                guard count <= places.count - at else { throw BlockCodec.CorruptBlock() }
                for place in places[at..<at + count] {
                    guard let series = index.series(atPlace: place) else { throw BlockCodec.CorruptBlock() }
                    try append(series, in: row, atMs, heads.head(series).state.bits, newest)
                }
                at += count
            case .gap(let count):
                guard count <= places.count - at else { throw BlockCodec.CorruptBlock() }
                at += count
            }
        }
    }

    private mutating func sample(
        _ cursor: inout ByteCursor, _ index: inout SeriesIndex, _ newest: Slabs<Int64>,
        _ bucket: (Int) -> SavedBucket?
    ) throws(BlockCodec.CorruptBlock) {
        let place = try cursor.varint()
        let atMs = try time(&cursor)
        guard place < UInt64(UInt32.max) else { throw BlockCodec.CorruptBlock() }
        try wake(UInt32(place), &index, newest, bucket)
        guard let series = index.series(atPlace: UInt32(place)) else { throw BlockCodec.CorruptBlock() }
        var state = heads.head(series).state
        switch try state.read(&cursor) {
        case .value, .repeats(1): break
        default: throw BlockCodec.CorruptBlock()
        }
        try append(series, in: nil, atMs, state.bits, newest)
    }

    /// - Parameter row: nil for a sample with a time of its own.
    private func append(
        _ series: Int, in row: (source: Int, number: UInt32)?, _ atMs: Int64, _ bits: UInt64, _ newest: Slabs<Int64>
    ) throws(BlockCodec.CorruptBlock) {
        newest.grow(to: series + 1)
        let lastMs = newest[series]
        guard atMs > lastMs || heads.head(series).count == 0 else { throw BlockCodec.CorruptBlock() }
        if let row {
            _ = heads.append(series, source: row.source, row: row.number, atMs: atMs, lastMs: lastMs, bits: bits)
        } else {
            _ = heads.append(series, atMs: atMs, lastMs: lastMs, bits: bits)
        }
        newest[series] = atMs
    }

    private mutating func time(_ cursor: inout ByteCursor) throws(BlockCodec.CorruptBlock) -> Int64 {
        lastMs = lastMs &+ Varint.unzigzag(try cursor.varint())
        return lastMs
    }
}
