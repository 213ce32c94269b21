/// Whether few have most of what is too much.
enum Concentration {
    /// The fewest that together have 80 % of all excess, the one with most first.
    static func fewest<Element>(
        _ list: [Element], excess: (Element) -> Double, name: (Element) -> String
    ) -> [Element] {
        let sorted = list.filter { excess($0) > 0 }.sorted { (excess($1), name($0)) < (excess($0), name($1)) }
        let total = sorted.reduce(0) { $0 + excess($1) }
        var sum = 0.0
        return Array(
            sorted.prefix { one in
                guard sum < 0.8 * total else { return false }
                sum += excess(one)
                return true
            })
    }
}
