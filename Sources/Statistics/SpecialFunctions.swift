import Foundation

/// Functions that the tests of this module are made of; plain numbers in and out.
package enum SpecialFunctions {
    /// The regularised incomplete beta function I_x(a, b), for a, b > 0 and x in 0...1.
    ///
    /// By the continued fraction 8.17.22 of the NIST Digital Library of Mathematical Functions, evaluated by Lentz'
    /// method; relative error about 1e-13 for a, b up to 1e6.
    package static func incompleteBeta(_ x: Double, a: Double, b: Double) -> Double {
        if x <= 0 { return 0 }
        if x >= 1 { return 1 }
        let front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log1p(-x))
        // The fraction converges fast for x below the mean; above, by the symmetry of DLMF 8.17.4.
        return x < (a + 1) / (a + b + 2)
            ? front * betaFraction(x, a, b) / a : 1 - front * betaFraction(1 - x, b, a) / b
    }

    private static func betaFraction(_ x: Double, _ a: Double, _ b: Double) -> Double {
        let tiny = 1e-300
        var c = 1.0
        var d = 1 - (a + b) * x / (a + 1)
        d = 1 / (abs(d) < tiny ? tiny : d)
        var result = d
        // The number of terms grows as the square root of the larger parameter.
        for m in 1...20_000 {
            let m = Double(m)
            var term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
            d = 1 + term * d
            c = 1 + term / c
            d = 1 / (abs(d) < tiny ? tiny : d)
            if abs(c) < tiny { c = tiny }
            result *= d * c
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
            d = 1 + term * d
            c = 1 + term / c
            d = 1 / (abs(d) < tiny ? tiny : d)
            if abs(c) < tiny { c = tiny }
            let delta = d * c
            result *= delta
            if abs(delta - 1) < 1e-15 { break }
        }
        return result
    }

    /// The x with I_x(a, b) = p: the quantile of the beta distribution.
    package static func betaQuantile(_ p: Double, a: Double, b: Double) -> Double {
        if p <= 0 { return 0 }
        if p >= 1 { return 1 }
        // Bisection: the function is monotone, and the callers' rates may be as small as 1e-12.
        var low = 0.0
        var high = 1.0
        for _ in 0..<200 {
            let middle = low > 0 && high / low > 4 ? (low * high).squareRoot() : (low + high) / 2
            if incompleteBeta(middle, a: a, b: b) < p { low = middle } else { high = middle }
            if low == 0, high < 1e-300 { break }
            if high - low <= 1e-14 * high { break }
        }
        return (low + high) / 2
    }

    /// The regularised lower incomplete gamma function P(a, x), for a > 0 and x >= 0.
    ///
    /// By the series 8.11.4 of the NIST Digital Library of Mathematical Functions below a + 1, by the continued fraction
    /// 8.9.2 above; relative error about 1e-12 for a up to 1e6, about 1e-9 at 1e9.
    package static func incompleteGamma(_ x: Double, shape a: Double) -> Double {
        if x <= 0 { return 0 }
        if x.isInfinite { return 1 }
        let front = exp(a * log(x) - x - lgamma(a))
        // Both converge with the square root of a, which is at most so many terms for counts that are met.
        if x < a + 1 {
            var term = 1 / a
            var sum = term
            for k in 1...1_000_000 {
                term *= x / (a + Double(k))
                sum += term
                if term < sum * 1e-16 { break }
            }
            return front * sum
        }
        var b = x + 1 - a
        var c = 1e300
        var d = 1 / b
        var fraction = d
        for k in 1...1_000_000 {
            let k = Double(k)
            let factor = -k * (k - a)
            b += 2
            d = 1 / (factor * d + b)
            c = b + factor / c
            let delta = d * c
            fraction *= delta
            if abs(delta - 1) < 1e-15 { break }
        }
        return 1 - front * fraction
    }

    /// The x with P(a, x) = p: the quantile of the gamma distribution with scale 1, for p in 0...1, both open.
    package static func gammaQuantile(_ p: Double, shape a: Double) -> Double {
        if p <= 0 { return 0 }
        if p >= 1 { return .infinity }
        // Ten standard deviations and the tail of small shapes are above every p that a double tells from 1.
        var low = 0.0
        var high = a + 10 * a.squareRoot() + 50
        for _ in 0..<200 {
            let middle = (low + high) / 2
            if incompleteGamma(middle, shape: a) < p { low = middle } else { high = middle }
            if high - low <= 1e-14 * high { break }
        }
        return (low + high) / 2
    }

    /// The quantile of the standard normal distribution, for p in 0...1, both open.
    ///
    /// P. Acklam's rational approximation with one step of Halley's method: error below 1e-14.
    package static func normalQuantile(_ p: Double) -> Double {
        let a = [
            -39.69683028665376, 220.9460984245205, -275.9285104469687, 138.3577518672690, -30.66479806614716,
            2.506628277459239,
        ]
        let b = [-54.47609879822406, 161.5858368580409, -155.6989798598866, 66.80131188771972, -13.28068155288572]
        let c = [
            -0.007784894002430293, -0.3223964580411365, -2.400758277161838, -2.549732539343734,
            4.374664141464968, 2.938163982698783,
        ]
        let d = [0.007784695709041462, 0.3224671290700398, 2.445134137142996, 3.754408661907416]
        func tail(_ q: Double) -> Double {
            (((((c[0] * q + c[1]) * q + c[2]) * q + c[3]) * q + c[4]) * q + c[5])
                / ((((d[0] * q + d[1]) * q + d[2]) * q + d[3]) * q + 1)
        }
        if p <= 0 { return -.infinity }
        if p >= 1 { return .infinity }
        var x: Double
        if p < 0.02425 {
            x = tail((-2 * log(p)).squareRoot())
        } else if p > 1 - 0.02425 {
            x = -tail((-2 * log1p(-p)).squareRoot())
        } else {
            let q = p - 0.5
            let r = q * q
            x =
                (((((a[0] * r + a[1]) * r + a[2]) * r + a[3]) * r + a[4]) * r + a[5]) * q
                / (((((b[0] * r + b[1]) * r + b[2]) * r + b[3]) * r + b[4]) * r + 1)
        }
        let error = 0.5 * erfc(-x / 2.0.squareRoot()) - p
        let step = error * (2 * Double.pi).squareRoot() * exp(x * x / 2)
        x -= step / (1 + x * step / 2)
        return x
    }

    /// The distribution function of Student's t with `degrees` degrees of freedom.
    package static func studentT(_ t: Double, degrees: Double) -> Double {
        let tail = incompleteBeta(degrees / (degrees + t * t), a: degrees / 2, b: 0.5) / 2
        return t > 0 ? 1 - tail : tail
    }

    /// The quantile of Student's t, for p in 0...1, both open, and degrees > 0.
    package static func studentTQuantile(_ p: Double, degrees: Double) -> Double {
        if p == 0.5 { return 0 }
        let x = betaQuantile(2 * min(p, 1 - p), a: degrees / 2, b: 0.5)
        let t = (degrees * (1 - x) / x).squareRoot()
        return p < 0.5 ? -t : t
    }
}
