import Series

/// Frames and journal rows from and to plain columns: what tests, fuzz targets and benchmarks hold the codecs by.
extension BlockCodec {
    /// One series of a frame.
    package struct Columns: Equatable {
        package var slot: Int
        package var timestampsMs: [Int64]
        package var values: [Double]

        package init(slot: Int, timestampsMs: [Int64], values: [Double]) {
            self.slot = slot
            self.timestampsMs = timestampsMs
            self.values = values
        }

        /// Values are equal by their bits, so that a NaN equals itself.
        package static func == (left: Columns, right: Columns) -> Bool {
            left.slot == right.slot && left.timestampsMs == right.timestampsMs
                && left.values.map(\.bitPattern) == right.values.map(\.bitPattern)
        }
    }

    /// The bytes of the first frame of a block, before they are compressed.
    ///
    /// - Parameters:
    ///   - series: in ascending slots below 64, each with ascending times.
    ///   - rows: the times of the one source; a series that has another time keeps its own.
    package static func frame(of series: [Columns], rows: [Int64]) throws(CorruptBlock) -> [UInt8] {
        let heads = Heads()
        for time in rows { _ = heads.row(of: 0, atMs: time) }
        for columns in series {
            var lastMs: Int64 = 0
            for (time, value) in zip(columns.timestampsMs, columns.values) {
                if let row = heads.row(of: 0, atMs: time), Int(row) < rows.count, rows[Int(row)] == time {
                    _ = heads.append(
                        columns.slot, source: 0, row: row, atMs: time, lastMs: lastMs, bits: value.bitPattern)
                } else {
                    _ = heads.append(columns.slot, atMs: time, lastMs: lastMs, bits: value.bitPattern)
                }
                lastMs = time
            }
        }
        let writer = Writer()
        for columns in series where !columns.values.isEmpty {
            writer.add(slot: columns.slot, times: 0, heads.head(columns.slot), of: heads)
        }
        let block = writer.finish()
        return try block.withRawBytes { (bytes) throws(CorruptBlock) in
            let packed = try frame(0, of: bytes)
            return packed.isEmpty ? [0] : try ZstdDecompressor().decompress(packed, most: maxFrameBytes)
        }
    }

    /// What a frame's bytes say.
    package static func columns(ofFrame plain: [UInt8], rows: [Int64]) throws(CorruptBlock) -> [Columns] {
        let frame = try BlockFrame(plain: plain, frame: 0)
        var out: [Columns] = []
        for entry in frame.entries {
            var columns = SampleColumns()
            try frame.read(entry, rows: rows, fromMs: .min, throughMs: .max, into: &columns)
            out.append(Columns(slot: entry.slot, timestampsMs: columns.timestampsMs, values: columns.values))
        }
        return out
    }

    /// Reads a journal's bytes, before they were compressed, into an empty store.
    ///
    /// - Returns: how many samples they hold.
    package static func samples(inJournal plain: [UInt8]) throws(CorruptBlock) -> Int {
        var reader = JournalReader()
        var index = SeriesIndex()
        let newest = Slabs<Int64>(repeating: .min)
        try plain.withRawBytes { (bytes) throws(CorruptBlock) in
            try reader.read(plain: bytes, &index, newest) { _ in nil }
        }
        return reader.heads.samples
    }
}
