import CCrypt
import Dispatch
import Synchronization

/// Compares passwords with bcrypt hashes (Provos and Mazières, USENIX 1999), which is slow on purpose.
///
/// The work is done on a thread of its own, one password at a time, so that guesses keep nobody waiting but those who
/// guess. A password that was right is known again by a hash that costs a millisecond.
final class PasswordCheck: Sendable {
    /// What a check came to.
    enum Answer { case right, wrong, busy }

    private let users: [String: String]
    /// What is compared with where there is no such user, which takes as long.
    private let nobody: String
    private let queue = DispatchQueue(label: "passwords")
    private let waiting = Mutex(0)
    /// By user, the quick hash of the password that was right.
    private let known = Mutex<[String: String]>([:])

    /// So many passwords wait; more are sent away.
    private static let longestQueue = 32

    init(users: [String: String]) {
        self.users = users
        nobody = users.values.max() ?? ""
    }

    func check(user: String, password: String) async -> Answer {
        // Who is known does not wait among those who guess.
        if let quick = known.withLock({ $0[user] }), PasswordCheck.matches(password, quick) { return .right }
        let isFull = waiting.withLock { waiting in
            if waiting >= PasswordCheck.longestQueue { return true }
            waiting += 1
            return false
        }
        if isFull { return .busy }
        return await withCheckedContinuation { continuation in
            queue.async { [self] in
                let isRight = isRight(user, password)
                waiting.withLock { $0 -= 1 }
                continuation.resume(returning: isRight ? .right : .wrong)
            }
        }
    }

    private func isRight(_ user: String, _ password: String) -> Bool {
        let hash = users[user]
        guard PasswordCheck.matches(password, hash ?? nobody), hash != nil else { return false }
        if let quick = PasswordCheck.quickHash(password) { known.withLock { $0[user] = quick } }
        return true
    }

    private static func matches(_ password: String, _ hash: String) -> Bool {
        guard let computed = crypted(password, hash) else { return false }
        return ConstantTime.areEqual(computed, hash)
    }

    private static func quickHash(_ password: String) -> String? {
        var setting = [CChar](repeating: 0, count: 64)
        guard crypt_gensalt_rn("$2b$", 4, nil, 0, &setting, Int32(setting.count)) != nil else { return nil }
        return crypted(
            password, String(decoding: setting.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self))
    }

    private static func crypted(_ password: String, _ setting: String) -> String? {
        var data = crypt_data()
        // A setting that is not known gives a text that begins with a star.
        guard let result = crypt_r(password, setting, &data) else { return nil }
        let text = String(cString: result)
        return text.hasPrefix("*") ? nil : text
    }
}

/// Comparisons whose time says nothing of where two texts differ.
enum ConstantTime {
    static func areEqual(_ left: String, _ right: String) -> Bool {
        let (a, b) = (Array(left.utf8), Array(right.utf8))
        guard a.count == b.count else { return false }
        return zip(a, b).reduce(UInt8(0)) { $0 | ($1.0 ^ $1.1) } == 0
    }
}
