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
    /// The matcher that accepts the fewest series by its postings goes first; the others are tried on what it leaves.
    /// - Complexity: O(series that the rarest matcher accepts), O(all) where every matcher accepts an empty value.
    func select(_ matchers: [LabelMatcher]) -> [SeriesID] {
        var best: [SeriesID]?
        var bestPlace: Int?
        for (place, matcher) in matchers.enumerated() where !matcher.accepts("") {
            let byValue = postings[matcher.name] ?? [:]
            let list: [SeriesID]
            if matcher.operator == .equal {
                list = byValue[matcher.value] ?? []
            } else {
                list = byValue.filter { matcher.accepts($0.key) }.flatMap(\.value)
            }
            if list.count < best?.count ?? .max {
                best = list
                bestPlace = place
            }
        }
        // What the postings have answered need not be asked again.
        let rest = matchers.indices.filter { $0 != bestPlace }.map { matchers[$0] }
        let candidates = best ?? Array(labels.keys)
        guard !rest.isEmpty else { return candidates }
        return candidates.filter { id in
            guard let labels = labels[id] else { return false }
            return rest.allSatisfy { $0.accepts(labels) }
        }
    }
}
