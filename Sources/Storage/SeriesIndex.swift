import Series

/// Which series there are, and which of them a selector accepts.
///
/// In memory, made from the table `series` at opening.
struct SeriesIndex {
    private(set) var labels: [SeriesID: Labels] = [:]
    private var ids: [Labels: SeriesID] = [:]
    /// For each label name and value the numbers of the series that have it, ascending.
    private var postings: [String: [String: [SeriesID]]] = [:]
    private var lastID: Int64 = 0

    func id(of labels: Labels) -> SeriesID? { ids[labels] }

    /// Gives the next number to a new series.
    mutating func insert(_ labels: Labels) -> SeriesID {
        lastID += 1
        let id = SeriesID(rawValue: lastID)
        load(labels, as: id)
        return id
    }

    /// Takes in a series that has its number already; numbers must come in ascending order.
    mutating func load(_ labels: Labels, as id: SeriesID) {
        lastID = max(lastID, id.rawValue)
        self.labels[id] = labels
        ids[labels] = id
        for label in labels.pairs { postings[label.name, default: [:]][label.value, default: []].append(id) }
    }

    mutating func remove(_ gone: Set<SeriesID>) {
        for id in gone {
            guard let labels = self.labels.removeValue(forKey: id) else { continue }
            ids[labels] = nil
        }
        for name in Array(postings.keys) {
            postings[name] = postings[name]?.compactMapValues { list in
                let kept = list.filter { !gone.contains($0) }
                return kept.isEmpty ? nil : kept
            }
        }
    }

    /// The series that all matchers accept.
    ///
    /// The lists of those that ask for one value are cut with each other, the shortest first; what other matchers ask for
    /// is tried on what is left, or, where nothing else is asked, gathered from the lists of all values that they accept.
    /// - Complexity: O(series of the rarest value, times the logarithms of the others'); O(all) where every matcher
    ///   accepts an empty value.
    func select(_ matchers: [LabelMatcher]) -> [SeriesID] {
        var exact: [[SeriesID]] = []
        var others: [LabelMatcher] = []
        for matcher in matchers {
            if matcher.operator == .equal, !matcher.value.isEmpty {
                guard let list = postings[matcher.name]?[matcher.value] else { return [] }
                exact.append(list)
            } else {
                others.append(matcher)
            }
        }
        exact.sort { $0.count < $1.count }
        var candidates: [SeriesID]
        if let shortest = exact.first {
            candidates = shortest
            for list in exact.dropFirst() { candidates = SeriesIndex.common(candidates, list) }
        } else if let place = others.firstIndex(where: { !$0.accepts("") }) {
            let matcher = others.remove(at: place)
            candidates = (postings[matcher.name] ?? [:]).filter { matcher.accepts($0.key) }.flatMap(\.value)
            candidates.sort()
        } else {
            candidates = labels.keys.sorted()
        }
        guard !others.isEmpty else { return candidates }
        return candidates.filter { id in
            guard let labels = labels[id] else { return false }
            return others.allSatisfy { $0.accepts(labels) }
        }
    }

    /// What two ascending lists have in common: each of the shorter is looked for in what is left of the longer.
    private static func common(_ short: [SeriesID], _ long: [SeriesID]) -> [SeriesID] {
        var out: [SeriesID] = []
        var low = 0
        for id in short {
            var step = 1
            var high = low
            while high < long.count, long[high] < id {
                low = high + 1
                high += step
                step *= 2
            }
            high = min(high, long.count)
            while low < high {
                let middle = (low + high) / 2
                if long[middle] < id { low = middle + 1 } else { high = middle }
            }
            guard low < long.count else { break }
            if long[low] == id { out.append(id) }
        }
        return out
    }
}
