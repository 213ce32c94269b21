/// A function of the language: its name, what it takes and what it gives.
package struct Function: Sendable {
    package let name: String
    let arguments: [ValueType]
    /// How many of the last arguments may be left out; -1: the last one may be repeated or left out.
    let optional: Int
    let result: ValueType
    /// Whether it is only there with `promql-experimental-functions`.
    let isExperimental: Bool

    private static let experimental: Set<String> = [
        "double_exponential_smoothing", "end", "histogram_quantiles", "info", "mad_over_time",
        "max_of", "min_of", "range", "sort_by_label", "sort_by_label_desc", "start", "step", "ts_of_first_over_time",
        "ts_of_last_over_time", "ts_of_max_over_time", "ts_of_min_over_time",
    ]

    /// The functions by name, as listed in prometheus.io/docs/prometheus/latest/querying/functions.
    package static let all: [String: Function] = {
        var table: [String: Function] = [:]
        func add(_ names: String, _ arguments: [ValueType], optional: Int = 0, _ result: ValueType = .vector) {
            for name in names.split(separator: " ").map(String.init) {
                table[name] = Function(
                    name: name, arguments: arguments, optional: optional, result: result,
                    isExperimental: experimental.contains(name))
            }
        }
        add(
            """
            abs absent acos acosh asin asinh atan atanh ceil cos cosh deg exp floor ln log10 log2 rad sgn sin sinh \
            sort sort_desc sqrt tan tanh timestamp
            """, [.vector])
        add("day_of_month day_of_week day_of_year days_in_month hour minute month year", [.vector], optional: 1)
        add(
            """
            absent_over_time avg_over_time changes count_over_time delta deriv first_over_time idelta increase irate \
            last_over_time mad_over_time max_over_time min_over_time present_over_time rate resets stddev_over_time \
            stdvar_over_time sum_over_time ts_of_first_over_time ts_of_last_over_time ts_of_max_over_time \
            ts_of_min_over_time
            """, [.matrix])
        add("clamp", [.vector, .scalar, .scalar])
        add("clamp_max clamp_min", [.vector, .scalar])
        add("double_exponential_smoothing", [.matrix, .scalar, .scalar])
        add("histogram_avg histogram_count histogram_stddev histogram_stdvar histogram_sum", [.vector])
        add("histogram_quantile", [.scalar, .vector])
        add("histogram_quantiles", [.vector, .string, .scalar, .scalar], optional: -1)
        add("histogram_fraction", [.scalar, .scalar, .vector])
        add("label_join", [.vector, .string, .string, .string], optional: -1)
        add("label_replace", [.vector, .string, .string, .string, .string])
        add("end pi range start step time", [], .scalar)
        add("max_of min_of", [.scalar, .scalar], .scalar)
        add("info", [.vector, .vector], optional: 1)
        add("predict_linear", [.matrix, .scalar])
        add("quantile_over_time", [.scalar, .matrix])
        add("round", [.vector, .scalar], optional: 1)
        add("scalar", [.vector], .scalar)
        add("sort_by_label sort_by_label_desc", [.vector, .string], optional: -1)
        add("vector", [.scalar])
        return table
    }()
}
