import Series

/// What a column is called.
struct ColumnHead: Sendable {
    var labels: Labels
    /// Whether the name is to go at the query's end; it stands in the labels until then.
    var dropsName = false
}

/// Series with a value a step, each made when it is asked for.
///
/// Selectors, functions of one series and arithmetic with scalars are chained without holding what lies between, so that
/// an aggregation over many series holds its groups only.
struct ColumnStream: Sendable {
    /// What takes one column: its place in ``heads`` and its values, which it may change; never called for a series that
    /// has no value at any step.
    typealias Body = (Int, UnsafeMutableBufferPointer<Double>) throws -> Void

    let heads: [ColumnHead]
    private let maker: @Sendable (ArraySlice<Int>, Body) throws -> Void

    /// - Parameter maker: calls its body for the places, in their order.
    init(heads: [ColumnHead], maker: @escaping @Sendable (ArraySlice<Int>, Body) throws -> Void) {
        self.heads = heads
        self.maker = maker
    }

    /// A stream of columns that are there.
    init(_ columns: [Column]) {
        self.init(heads: columns.map { ColumnHead(labels: $0.labels, dropsName: $0.dropsName) }) { places, body in
            for place in places {
                var values = columns[place].values
                try values.withUnsafeMutableBufferPointer { try body(place, $0) }
            }
        }
    }

    /// Whether the name of what is made of some series is to go: where that of any of them is.
    func dropsName(_ places: [Int]) -> Bool { places.contains { heads[$0].dropsName } }

    /// Makes the columns at these places, in their order.
    func make(_ places: ArraySlice<Int>, _ body: Body) throws { try maker(places, body) }

    /// The stream under other heads, its values changed in place by `transform`.
    func map(
        heads: [ColumnHead]? = nil, _ transform: @escaping @Sendable (UnsafeMutableBufferPointer<Double>) -> Void
    ) -> ColumnStream {
        ColumnStream(heads: heads ?? self.heads) { [self] places, body in
            try make(places) { place, values in
                transform(values)
                try body(place, values)
            }
        }
    }

    /// Whether all series have the same name, and neither type nor unit, so that they differ without it.
    var haveOneName: Bool {
        guard let first = heads.first?.labels.name else { return true }
        return heads.allSatisfy { $0.labels.name == first && !$0.labels.hasTypeOrUnit }
    }

    /// Cuts places into pieces of work for the cores.
    ///
    /// How they are cut follows from their number alone, so that sums are the same on every machine.
    static func pieces(_ places: [Int]) -> [ArraySlice<Int>] {
        let count = min(8, max(1, places.count / 32))
        return (0..<count).map { places[places.count * $0 / count..<places.count * ($0 + 1) / count] }
    }

    /// All columns, without those that have no value.
    ///
    /// - Parameter hold: is called with the number of values before they are kept.
    func collect(_ hold: @Sendable (Int) throws -> Void) throws -> [Column] {
        try ColumnStream.pieces(Array(heads.indices)).concurrentMap { places in
            var columns: [Column] = []
            try make(places) { place, values in
                guard values.contains(where: { !$0.isAbsent }) else { return }
                try hold(values.count)
                columns.append(
                    Column(
                        labels: heads[place].labels, values: Array(values), dropsName: heads[place].dropsName))
            }
            return columns
        }.flatMap { $0 }
    }

    /// What comes of each group of series, made group after group on both cores.
    ///
    /// - Parameters:
    ///   - groups: the places of each group's series.
    ///   - splits: whether a group may be worked on in parts, which `merge` puts together in their order.
    ///   - add: takes one column into the group's state.
    ///   - finish: makes the group's result of its state; states without a column give none.
    func fold<State, Result: Sendable>(
        _ groups: [[Int]], splits: Bool, start: @Sendable (Int) -> State,
        add: @Sendable (inout State, Int, UnsafeMutableBufferPointer<Double>) throws -> Void,
        merge: @Sendable (inout State, State) -> Void, finish: @Sendable (Int, State) throws -> Result
    ) throws -> [(group: Int, result: Result)] where State: Sendable {
        var order: [Int] = []
        var groupOf = [Int](repeating: 0, count: heads.count)
        for (number, members) in groups.enumerated() {
            order += members
            for member in members { groupOf[member] = number }
        }
        if splits, groups.count > 1, groups.count * ColumnStream.seriesPerGroup <= order.count {
            return try foldTogether(groups.count, order.sorted(), groupOf, start, add, merge, finish)
        }
        var pieces = ColumnStream.pieces(order)
        if !splits { pieces = ColumnStream.aligned(pieces, order, groupOf) }
        let parts = try pieces.map { [groupOf] in ($0, groupOf) }.concurrentMap { places, groupOf in
            guard let first = places.first.map({ groupOf[$0] }), let last = places.last.map({ groupOf[$0] }) else {
                return [FoldPart<State, Result>]()
            }
            var parts: [FoldPart<State, Result>] = []
            var group = first
            var state = start(group)
            var isEmpty = true
            func close() throws {
                guard !isEmpty else { return }
                // The first and the last group of a piece may go on in its neighbours.
                if splits, group == first || group == last {
                    parts.append(.state(group, state))
                } else {
                    parts.append(.result(group, try finish(group, state)))
                }
            }
            try make(places) { place, values in
                if groupOf[place] != group {
                    try close()
                    isEmpty = true
                    group = groupOf[place]
                    state = start(group)
                }
                isEmpty = false
                try add(&state, place, values)
            }
            try close()
            return parts
        }
        var results: [(group: Int, result: Result)] = []
        var open: (group: Int, state: State)?
        for part in parts.joined() {
            if case .state(let group, let state) = part, var joined = open, joined.group == group {
                open = nil
                merge(&joined.state, state)
                open = joined
                continue
            }
            if let done = open { results.append((done.group, try finish(done.group, done.state))) }
            switch part {
            case .state(let group, let state): open = (group, state)
            case .result(let group, let result):
                open = nil
                results.append((group, result))
            }
        }
        if let done = open { results.append((done.group, try finish(done.group, done.state))) }
        return results
    }

    /// From so many series a group on all groups are made at the same time.
    private static let seriesPerGroup = 8

    /// The same with a state for each group, series after series as they are stored: what is compressed together is read
    /// once, and not for each group that has a part in it.
    private func foldTogether<State, Result: Sendable>(
        _ count: Int, _ places: [Int], _ groupOf: [Int], _ start: @Sendable (Int) -> State,
        _ add: @Sendable (inout State, Int, UnsafeMutableBufferPointer<Double>) throws -> Void,
        _ merge: @Sendable (inout State, State) -> Void, _ finish: @Sendable (Int, State) throws -> Result
    ) throws -> [(group: Int, result: Result)] where State: Sendable {
        let parts = try ColumnStream.pieces(places).map { [groupOf] in ($0, groupOf) }.concurrentMap {
            places, groupOf in
            var states: [State] = []
            var stateOf = [Int](repeating: -1, count: count)
            try make(places) { place, values in
                let group = groupOf[place]
                if stateOf[group] < 0 {
                    stateOf[group] = states.count
                    states.append(start(group))
                }
                try add(&states[stateOf[group]], place, values)
            }
            return (states, stateOf)
        }
        return try (0..<count).compactMap { group in
            var joined: State?
            for (states, stateOf) in parts where stateOf[group] >= 0 {
                if var state = joined {
                    joined = nil
                    merge(&state, states[stateOf[group]])
                    joined = state
                } else {
                    joined = states[stateOf[group]]
                }
            }
            return try joined.map { (group, try finish(group, $0)) }
        }
    }

    /// Moves the cuts between pieces to where a group ends.
    private static func aligned(
        _ pieces: [ArraySlice<Int>], _ all: [Int], _ groupOf: [Int]
    ) -> [ArraySlice<Int>] {
        var cuts = pieces.map(\.endIndex)
        for index in cuts.indices {
            while cuts[index] < all.count, cuts[index] > 0, groupOf[all[cuts[index]]] == groupOf[all[cuts[index] - 1]] {
                cuts[index] += 1
            }
        }
        var start = 0
        return cuts.compactMap { cut in
            defer { start = max(start, cut) }
            return cut > start ? all[start..<cut] : nil
        }
    }
}

/// What a piece of work gives for one group: its result, or a state that goes on in the next piece.
private enum FoldPart<State: Sendable, Result: Sendable>: Sendable {
    case state(Int, State)
    case result(Int, Result)
}
