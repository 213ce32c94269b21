import Algorithms
import Series

/// Where the series are that are in the file alone, by a hash of their labels: eight bytes each.
///
/// It says where a series may be; only its labels in the file say whether it is that one.
struct SleepingSeries {
    /// A hash in the upper half, a place in the lower one; ascending, unless some were just added.
    private var entries: [UInt64] = []
    private var isSorted = true

    private static func hash(_ labels: Labels) -> UInt64 { UInt64(UInt32(truncatingIfNeeded: labels.hashValue)) }

    mutating func add(_ labels: Labels, _ place: UInt32) {
        entries.append(SleepingSeries.hash(labels) << 32 | UInt64(place))
        isSorted = false
    }

    /// The places of series whose labels have the same hash, also of some that are awake by now.
    mutating func places(of labels: Labels) -> [UInt32] {
        if !isSorted {
            // A long ascending run and a few behind it: the sort finds that out.
            entries.sort()
            isSorted = true
        }
        let hash = SleepingSeries.hash(labels)
        let start = entries.partitioningIndex { $0 >> 32 >= hash }
        return entries[start...].prefix { $0 >> 32 == hash }.map { UInt32(truncatingIfNeeded: $0) }
    }

    /// Leaves out what sleeps no more, and takes just the memory that so many more need.
    mutating func keep(_ isAsleep: (UInt32) -> Bool, more: Int) {
        entries.removeAll { !isAsleep(UInt32(truncatingIfNeeded: $0)) }
        entries.reserveCapacity(entries.count + more)
    }
}
