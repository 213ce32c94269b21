import Algorithms
import Series

/// Which series there are, where each stands in the file, and which of them a selector accepts.
///
/// In memory. A label with its value is kept once and has a number; a series is a list of such numbers. Series are
/// numbered as they come; in the file they have a place in a bucket of their metric's name. Of series that sleep only the
/// place is here, and a hash of their labels.
struct SeriesIndex {
    /// Series of one metric that share their blocks.
    struct Bucket {
        let name: String
        /// The series by slot; ``SeriesIndex/asleep`` for one that sleeps.
        var members: [UInt32] = []
        /// How many of them the file has.
        var saved = 0
        /// The newest sample in a block; of no meaning without one.
        var lastMs = Int64.min
        /// How many of the members sleep.
        var sleeping = 0
        /// The newest sample of those that sleep; of no meaning without one.
        var sleepingLastMs = Int64.min
    }

    /// In the place of a series' number.
    static let asleep = UInt32.max

    /// Slots in a bucket: enough that a block fills its pages, few enough that a query of one series reads little else.
    static let bucketBits = 9
    static let bucketSize = 1 << bucketBits

    /// The buckets by number; nil for those that are gone.
    private(set) var buckets: [Bucket?] = []
    private var openBuckets: [String: Int] = [:]

    private var pairs: [Label] = []
    private var pairIDs: [Label: UInt32] = [:]
    private var pairsOfName: [String: [UInt32]] = [:]
    /// For each label and value the series that have it; ascending, but for those in ``unsorted``.
    private var postings: [[UInt32]] = []
    /// Lists to which a number was appended that had been given before.
    private var unsorted: Set<UInt32> = []
    private var freePairs: [UInt32] = []

    /// For each series, where its labels' numbers begin in ``labelNumbers`` and how many they are; 0 for none.
    private let spans = Slabs<UInt64>(repeating: 0)
    private let labelNumbers = Slabs<UInt32>(repeating: 0)
    private var deadNumbers = 0
    private let generations = Slabs<UInt32>(repeating: 0)
    private let places = Slabs<UInt32>(repeating: .max)
    private var freeSeries: [UInt32] = []
    /// Series that do not sleep.
    private(set) var awakeCount = 0
    private(set) var sleepingCount = 0
    private var sleepers = SleepingSeries()
    /// The newest sample of all that ever slept.
    private var newestSleeperMs = Int64.min

    /// Series by the hash of their labels: open addressing, 0 for an empty place, else the number plus one.
    private var table = [UInt32](repeating: 0, count: 1024)
    private var tableUsed = 0

    // MARK: Numbers

    /// A series' number inside of the store; nil where the series is gone.
    @inline(__always)
    func number(_ id: SeriesID) -> Int? {
        let number = Int(truncatingIfNeeded: id.rawValue & 0xffff_ffff)
        guard number < spans.count, generations[number] == UInt32(truncatingIfNeeded: id.rawValue >> 32) else {
            return nil
        }
        return number
    }

    func id(_ number: UInt32) -> SeriesID {
        SeriesID(rawValue: Int64(generations[Int(number)]) << 32 | Int64(number))
    }

    /// How many numbers were given.
    var numbers: Int { spans.count }

    /// Where a series stands in the file: its bucket's number and its slot.
    func place(_ number: Int) -> UInt32 { places[number] }

    static func bucket(ofPlace place: UInt32) -> Int { Int(place) >> bucketBits }
    static func slot(ofPlace place: UInt32) -> Int { Int(place) & (bucketSize - 1) }
    static func place(bucket: Int, slot: Int) -> UInt32 { UInt32(bucket << bucketBits | slot) }

    /// The series at a place; nil where there is none, or one that sleeps.
    func series(atPlace place: UInt32) -> Int? {
        guard let number = member(atPlace: place), number != SeriesIndex.asleep else { return nil }
        return Int(number)
    }

    /// Whether a series is at that place and sleeps.
    func isAsleep(_ place: UInt32) -> Bool { member(atPlace: place) == SeriesIndex.asleep }

    private func member(atPlace place: UInt32) -> UInt32? {
        let bucket = SeriesIndex.bucket(ofPlace: place)
        let slot = SeriesIndex.slot(ofPlace: place)
        guard bucket < buckets.count, let members = buckets[bucket]?.members, slot < members.count else { return nil }
        return members[slot]
    }

    /// Whether the file has a series.
    func isSaved(_ number: Int) -> Bool {
        let place = places[number]
        guard place != .max, let bucket = buckets[SeriesIndex.bucket(ofPlace: place)] else { return false }
        return SeriesIndex.slot(ofPlace: place) < bucket.saved
    }

    /// Makes the next bucket's number higher than all of a file that has lost some.
    mutating func reserve(buckets count: Int) { while buckets.count < count { buckets.append(nil) } }

    func labels(_ number: Int) -> Labels { Labels(sorted: numbers(of: number).map { pairs[Int($0)] }) }

    private func numbers(of series: Int) -> [UInt32] {
        let span = spans[series]
        let start = Int(span >> 16)
        return (0..<Int(span & 0xffff)).map { labelNumbers[start + $0] }
    }

    // MARK: Adding

    func id(of labels: Labels) -> SeriesID? {
        var numbers: [UInt32] = []
        numbers.reserveCapacity(labels.pairs.count)
        for label in labels.pairs {
            guard let number = pairIDs[label] else { return nil }
            numbers.append(number)
        }
        return find(numbers).map { id($0) }
    }

    /// Gives a number and a place to a new series.
    ///
    /// - Returns: nil where a file can't have more buckets.
    mutating func insert(_ labels: Labels) -> SeriesID? {
        let name = labels.name
        var bucket = openBuckets[name] ?? -1
        if bucket < 0 || (buckets[bucket]?.members.count ?? SeriesIndex.bucketSize) >= SeriesIndex.bucketSize {
            bucket = buckets.count
            guard hasRoom(for: bucket) else { return nil }
            buckets[bucket] = Bucket(name: name)
            openBuckets[name] = bucket
        }
        return add(labels, to: bucket)
    }

    /// Takes in a bucket of the file, whose series come next.
    ///
    /// - Returns: false where a file can't have so many buckets.
    mutating func load(bucket: Int, name: String, lastMs: Int64) -> Bool {
        guard hasRoom(for: bucket), buckets[bucket] == nil else { return false }
        buckets[bucket] = Bucket(name: name, lastMs: lastMs)
        return true
    }

    private mutating func hasRoom(for bucket: Int) -> Bool {
        guard bucket >= 0, bucket < 1 << (32 - SeriesIndex.bucketBits) - 1 else { return false }
        while buckets.count <= bucket { buckets.append(nil) }
        return true
    }

    /// Takes in a series of the file or the journal at its place; series of a bucket come in the order of slots.
    ///
    /// What the journal says of a series that the file has is said twice, and no fault.
    /// - Returns: false where the place is not the bucket's next one.
    mutating func load(_ labels: Labels, place: UInt32, isSaved: Bool) -> Bool {
        let bucket = SeriesIndex.bucket(ofPlace: place)
        if let known = series(atPlace: place) { return self.labels(known) == labels }
        guard hasRoom(for: bucket) else { return false }
        if buckets[bucket] == nil { buckets[bucket] = Bucket(name: labels.name) }
        guard buckets[bucket]?.members.count == SeriesIndex.slot(ofPlace: place) else { return false }
        _ = add(labels, to: bucket)
        if isSaved { buckets[bucket]?.saved += 1 }
        noteRoom(in: bucket)
        return true
    }

    /// Lets new series of the metric into a bucket that was loaded, if it has room.
    private mutating func noteRoom(in number: Int) {
        guard let bucket = buckets[number], bucket.members.count < SeriesIndex.bucketSize else { return }
        openBuckets[bucket.name] = number
    }

    private mutating func add(_ labels: Labels, to bucket: Int) -> SeriesID {
        let slot = buckets[bucket]?.members.count ?? 0
        let number = register(labels, at: SeriesIndex.place(bucket: bucket, slot: slot))
        buckets[bucket]?.members.append(number)
        return id(number)
    }

    private mutating func register(_ labels: Labels, at seat: UInt32) -> UInt32 {
        let number: UInt32
        if let free = freeSeries.popLast() {
            number = free
        } else {
            number = UInt32(spans.count)
            let wanted = spans.count + 1
            spans.grow(to: wanted)
            generations.grow(to: wanted)
            places.grow(to: wanted)
        }
        let start = labelNumbers.count
        for label in labels.pairs {
            let pair = pairNumber(label)
            labelNumbers.append(pair)
            if let last = postings[Int(pair)].last, last > number { unsorted.insert(pair) }
            postings[Int(pair)].append(number)
        }
        spans[Int(number)] = UInt64(start) << 16 | UInt64(labels.pairs.count)
        places[Int(number)] = seat
        enter(number)
        awakeCount += 1
        return number
    }

    private mutating func pairNumber(_ label: Label) -> UInt32 {
        if let known = pairIDs[label] { return known }
        let number: UInt32
        if let free = freePairs.popLast() {
            number = free
            pairs[Int(free)] = label
        } else {
            number = UInt32(pairs.count)
            pairs.append(label)
            postings.append([])
        }
        pairIDs[label] = number
        pairsOfName[label.name, default: []].append(number)
        return number
    }

    // MARK: Looking up by labels

    private static func hash(_ numbers: some Sequence<UInt32>) -> UInt64 {
        var hash: UInt64 = 0x9e37_79b9_7f4a_7c15
        for number in numbers {
            hash = (hash ^ UInt64(number)) &* 0xff51_afd7_ed55_8ccd
            hash ^= hash >> 32
        }
        return hash
    }

    private func find(_ numbers: [UInt32]) -> UInt32? {
        let mask = table.count - 1
        var at = Int(truncatingIfNeeded: SeriesIndex.hash(numbers)) & mask
        while table[at] != 0 {
            let candidate = Int(table[at] - 1)
            let span = spans[candidate]
            let start = Int(span >> 16)
            if Int(span & 0xffff) == numbers.count,
                numbers.indices.allSatisfy({ labelNumbers[start + $0] == numbers[$0] })
            {
                return UInt32(candidate)
            }
            at = (at + 1) & mask
        }
        return nil
    }

    private mutating func enter(_ number: UInt32) {
        if (tableUsed + 1) * 4 > table.count * 3 { rebuildTable(size: table.count * 2) }
        place(number)
    }

    private mutating func place(_ number: UInt32) {
        let mask = table.count - 1
        var at = Int(truncatingIfNeeded: SeriesIndex.hash(numbers(of: Int(number)))) & mask
        while table[at] != 0 { at = (at + 1) & mask }
        table[at] = number + 1
        tableUsed += 1
    }

    /// Takes a series out of the table; what stands behind it for want of a better place moves up (Knuth, "The Art of
    /// Computer Programming", volume 3, 6.4, algorithm R).
    private mutating func leaveTable(_ number: UInt32) {
        let mask = table.count - 1
        func home(_ entry: UInt32) -> Int {
            Int(truncatingIfNeeded: SeriesIndex.hash(numbers(of: Int(entry) - 1))) & mask
        }
        var hole = home(number + 1)
        while table[hole] != number + 1 {
            guard table[hole] != 0 else { return }
            hole = (hole + 1) & mask
        }
        var at = (hole + 1) & mask
        while table[at] != 0 {
            if (at - home(table[at])) & mask >= (at - hole) & mask {
                table[hole] = table[at]
                hole = at
            }
            at = (at + 1) & mask
        }
        table[hole] = 0
        tableUsed -= 1
    }

    private mutating func rebuildTable(size: Int) {
        table = [UInt32](repeating: 0, count: size)
        tableUsed = 0
        for number in 0..<spans.count where spans[number] & 0xffff != 0 { place(UInt32(number)) }
    }

    // MARK: Removing

    /// Takes buckets out with all their series; the series' numbers are given again, their ids are not.
    mutating func remove(buckets gone: [Int]) {
        var dead: [UInt32] = []
        for bucket in gone {
            guard let old = buckets[bucket] else { continue }
            if openBuckets[old.name] == bucket { openBuckets[old.name] = nil }
            buckets[bucket] = nil
            sleepingCount -= old.sleeping
            dead += old.members.filter { $0 != SeriesIndex.asleep }
        }
        forget(dead)
    }

    private mutating func forget(_ dead: [UInt32]) {
        guard !dead.isEmpty else { return }
        var isDead = [Bool](repeating: false, count: spans.count)
        var touched: Set<UInt32> = []
        for number in dead {
            let series = Int(number)
            isDead[series] = true
            touched.formUnion(numbers(of: series))
            leaveTable(number)
            deadNumbers += Int(spans[series] & 0xffff)
            spans[series] = 0
            generations[series] &+= 1
            places[series] = .max
        }
        var unused: [String: Set<UInt32>] = [:]
        for pair in touched {
            postings[Int(pair)].removeAll { isDead[Int($0)] }
            guard postings[Int(pair)].isEmpty else { continue }
            let label = pairs[Int(pair)]
            postings[Int(pair)] = []
            unsorted.remove(pair)
            pairIDs[label] = nil
            unused[label.name, default: []].insert(pair)
            pairs[Int(pair)] = Label("", "")
            freePairs.append(pair)
        }
        for (name, unused) in unused { pairsOfName[name]?.removeAll { unused.contains($0) } }
        // The least is given again first.
        freeSeries += dead.reversed()
        awakeCount -= dead.count
        if deadNumbers > labelNumbers.count / 2 { closeGaps() }
    }

    /// Writes the labels' numbers without those of series that are gone.
    private mutating func closeGaps() {
        var end = 0
        let live = (0..<spans.count).filter { spans[$0] & 0xffff != 0 }.sorted { spans[$0] < spans[$1] }
        for series in live {
            let start = Int(spans[series] >> 16)
            let count = Int(spans[series] & 0xffff)
            for index in 0..<count { labelNumbers[end + index] = labelNumbers[start + index] }
            spans[series] = UInt64(end) << 16 | UInt64(count)
            end += count
        }
        labelNumbers.cut(to: end)
        deadNumbers = 0
    }

    // MARK: Sleeping

    /// Lets go of series that the file has; their numbers are given again, their places stay theirs.
    ///
    /// - Parameter series: numbers, each with the time of its newest sample.
    mutating func sleep(_ series: [(number: UInt32, lastMs: Int64)]) {
        guard !series.isEmpty else { return }
        var all = SleepingSeries()
        swap(&all, &sleepers)
        all.keep({ isAsleep($0) }, more: series.count)
        for (number, lastMs) in series {
            let place = places[Int(number)]
            all.add(labels(Int(number)), place)
            note(sleeperAt: place, lastMs)
            buckets[SeriesIndex.bucket(ofPlace: place)]?.members[SeriesIndex.slot(ofPlace: place)] = SeriesIndex.asleep
        }
        sleepers = all
        forget(series.map(\.number))
    }

    private mutating func note(sleeperAt place: UInt32, _ lastMs: Int64) {
        let bucket = SeriesIndex.bucket(ofPlace: place)
        newestSleeperMs = max(newestSleeperMs, lastMs)
        let known = buckets[bucket]?.sleepingLastMs ?? .min
        buckets[bucket]?.sleepingLastMs = max(known, lastMs)
        buckets[bucket]?.sleeping += 1
        sleepingCount += 1
    }

    /// Takes in a series of the file at its bucket's next place, asleep.
    mutating func load(sleeping labels: Labels, place: UInt32, lastMs: Int64) {
        let bucket = SeriesIndex.bucket(ofPlace: place)
        sleepers.add(labels, place)
        note(sleeperAt: place, lastMs)
        buckets[bucket]?.members.append(SeriesIndex.asleep)
        buckets[bucket]?.saved += 1
        noteRoom(in: bucket)
    }

    /// Whether any series of a bucket sleeps.
    func hasSleepers(_ bucket: Int) -> Bool { (buckets[bucket]?.sleeping ?? 0) > 0 }

    /// A bucket in which a series with these labels may sleep; nil where none does.
    mutating func bucket(ofSleeping labels: Labels) -> Int? {
        guard sleepingCount > 0 else { return nil }
        return sleepers.places(of: labels).first { isAsleep($0) }.map { SeriesIndex.bucket(ofPlace: $0) }
    }

    /// Takes all series of a bucket that sleep back in.
    ///
    /// - Parameter newest: gets the times of their newest samples.
    /// - Returns: how many they are.
    @discardableResult mutating func wake(_ saved: SavedBucket, _ newest: Slabs<Int64>) -> Int {
        guard saved.number < buckets.count, let members = buckets[saved.number]?.members else { return 0 }
        var woken = 0
        for (slot, labels) in zip(members.indices, saved.labels) where members[slot] == SeriesIndex.asleep {
            let number = register(labels, at: SeriesIndex.place(bucket: saved.number, slot: slot))
            buckets[saved.number]?.members[slot] = number
            newest.grow(to: Int(number) + 1)
            newest[Int(number)] = saved.newestMs(slot)
            woken += 1
        }
        buckets[saved.number]?.sleeping -= woken
        if !hasSleepers(saved.number) { buckets[saved.number]?.sleepingLastMs = .min }
        sleepingCount -= woken
        return woken
    }

    /// Where series sleep that may have samples of a time or newer, as far as the matchers of the name tell.
    ///
    /// - Returns: buckets, each with the slots that sleep.
    func sleepers(_ matchers: [LabelMatcher], fromMs: Int64) -> [(bucket: Int, slots: [Int])] {
        guard sleepingCount > 0, fromMs <= newestSleeperMs else { return [] }
        let names = matchers.filter { $0.name == Labels.metricName }
        return buckets.indices.compactMap { number in
            guard let bucket = buckets[number], bucket.sleeping > 0, bucket.sleepingLastMs >= fromMs,
                names.allSatisfy({ $0.accepts(bucket.name) })
            else { return nil }
            return (number, bucket.members.indices.filter { bucket.members[$0] == SeriesIndex.asleep })
        }
    }

    // MARK: What the file was told

    /// Whether there are series that the file does not know.
    var hasUnsavedSeries: Bool { buckets.contains { $0.map { $0.saved < $0.members.count } ?? false } }

    mutating func saved(bucket: Int, series: Int) { buckets[bucket]?.saved = series }

    mutating func wrote(bucket: Int, lastMs: Int64) {
        guard let known = buckets[bucket]?.lastMs else { return }
        buckets[bucket]?.lastMs = max(known, lastMs)
    }

    // MARK: Selecting

    /// The numbers of the series that all matchers accept, in the order of their places in the file.
    ///
    /// The lists of those that ask for one value are cut with each other, the shortest first; what other matchers ask for
    /// is tried on what is left, or, where nothing else is asked, gathered from the lists of all values that they accept.
    /// - Complexity: O(series of the rarest value, times the logarithms of the others'); O(all) where every matcher
    ///   accepts an empty value.
    mutating func select(_ matchers: [LabelMatcher]) -> [UInt32] {
        var exact: [[UInt32]] = []
        var others: [LabelMatcher] = []
        for matcher in matchers {
            if matcher.operator == .equal, !matcher.value.isEmpty {
                guard let pair = pairIDs[Label(matcher.name, matcher.value)] else { return [] }
                if unsorted.remove(pair) != nil { postings[Int(pair)].sort() }
                exact.append(postings[Int(pair)])
            } else {
                others.append(matcher)
            }
        }
        exact.sort { $0.count < $1.count }
        var candidates: [UInt32]
        if let shortest = exact.first {
            candidates = shortest
            for list in exact.dropFirst() { candidates = SeriesIndex.common(candidates, list) }
        } else if let place = others.firstIndex(where: { !$0.accepts("") }) {
            let matcher = others.remove(at: place)
            let lists = (pairsOfName[matcher.name] ?? []).filter { matcher.accepts(pairs[Int($0)].value) }
            candidates = lists.flatMap { postings[Int($0)] }
        } else {
            candidates = (0..<UInt32(spans.count)).filter { spans[Int($0)] & 0xffff != 0 }
        }
        for matcher in others { candidates = filter(candidates, matcher) }
        return candidates.sorted { places[Int($0)] < places[Int($1)] }
    }

    /// For each matcher that is a regular expression, the values that ``select(_:)`` and ``sleepers(_:fromMs:)`` would ask it about.
    mutating func values(askedOf matchers: [LabelMatcher]) -> [(matcher: Int, values: [String])] {
        let asking = matchers.indices.filter { matchers[$0].isPattern }
        guard !asking.isEmpty else { return [] }
        let exact = matchers.filter { $0.operator == .equal && !$0.value.isEmpty }
        let candidates = exact.isEmpty ? nil : select(exact)
        return asking.map { place in
            let name = matchers[place].name
            var own = pairsOfName[name] ?? []
            if let candidates, candidates.count <= own.count {
                let some = candidates.compactMap { series in
                    numbers(of: Int(series)).first { pairs[Int($0)].name == name }
                }
                own = Array(Set(some))
            }
            var values = own.map { pairs[Int($0)].value } + [""]
            if name == Labels.metricName {
                values += buckets.compactMap { $0.flatMap { $0.sleeping > 0 ? $0.name : nil } }
            }
            return (place, values)
        }
    }

    /// A matcher is asked once for each value, not once for each series.
    private func filter(_ candidates: [UInt32], _ matcher: LabelMatcher) -> [UInt32] {
        let own = pairsOfName[matcher.name] ?? []
        let absent = matcher.accepts("")
        guard candidates.count > own.count else {
            return candidates.filter { series in
                let number = numbers(of: Int(series)).first { pairs[Int($0)].name == matcher.name }
                return number.map { matcher.accepts(pairs[Int($0)].value) } ?? absent
            }
        }
        var verdicts: [UInt32: Bool] = [:]
        for number in own { verdicts[number] = matcher.accepts(pairs[Int(number)].value) }
        return candidates.filter { series in
            for number in numbers(of: Int(series)) {
                if let verdict = verdicts[number] { return verdict }
            }
            return absent
        }
    }

    /// What two ascending lists have in common: each of the shorter is looked for in what is left of the longer.
    private static func common(_ short: [UInt32], _ long: [UInt32]) -> [UInt32] {
        var out: [UInt32] = []
        var low = 0
        for id in short {
            var step = 1
            var high = low
            while high < long.count, long[high] < id {
                low = high + 1
                high += step
                step *= 2
            }
            low = long[low..<min(high, long.count)].partitioningIndex { $0 >= id }
            guard low < long.count else { break }
            if long[low] == id { out.append(id) }
        }
        return out
    }
}
