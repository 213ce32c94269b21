import ArgumentParser
import Series
import WebAPI

/// Prometheus' flags that bound queries.
struct QueryOptions: ParsableArguments {
    @Option(
        name: .customLong("query.timeout"),
        help: ArgumentHelp("The longest time that a query may take.", valueName: "duration"))
    var timeout = "2m"

    @Option(
        name: .customLong("query.max-concurrency"),
        help: ArgumentHelp("How many queries run at a time.", valueName: "number"))
    var maxConcurrency = 20

    @Option(
        name: .customLong("query.max-samples"),
        help: ArgumentHelp(
            "How many samples one query may hold in memory; all together may hold twice as many.", valueName: "number"))
    var maxSamples = 50_000_000

    @Option(
        name: .customLong("query.lookback-delta"),
        help: ArgumentHelp("How old the newest sample of a series may be to count.", valueName: "duration"))
    var lookbackDelta = "5m"

    var limits: QueryRunner.Limits {
        var limits = QueryRunner.Limits()
        limits.timeoutMs = TimeFormat.durationMs(timeout) ?? limits.timeoutMs
        limits.maxConcurrency = maxConcurrency
        limits.maxSamples = maxSamples
        limits.lookbackMs = TimeFormat.durationMs(lookbackDelta) ?? limits.lookbackMs
        return limits
    }

    /// By their names, as they are shown.
    var flags: [String: String] {
        [
            "query.timeout": timeout, "query.max-concurrency": "\(maxConcurrency)",
            "query.max-samples": "\(maxSamples)", "query.lookback-delta": lookbackDelta,
        ]
    }

    func validate() throws {
        for (name, text) in [("timeout", timeout), ("lookback-delta", lookbackDelta)] {
            guard let ms = TimeFormat.durationMs(text), ms > 0 else {
                throw ValidationError("--query.\(name) \(text) is not a duration; write it as in 5m")
            }
        }
        for (name, number) in [("max-concurrency", maxConcurrency), ("max-samples", maxSamples)] where number < 1 {
            throw ValidationError("--query.\(name) must be at least 1, not \(number)")
        }
    }
}
