import CCurl
import Glibc

/// One of curl's multi handles: drives transfers, and keeps the connections that they leave.
///
/// For everything that ends curl looks through all connections of its handle: a client with many has several handles. All
/// wait in one epoll instance (libcurl's `curl_multi_socket_action`), so that what a transfer takes does not grow with
/// the number of those that wait. Lives on the client's thread.
final class Multi {
    private let handle: UnsafeMutableRawPointer?
    private let epoll: Int32
    /// Tells the sockets of this handle from others in the same epoll instance.
    private let number: Int
    /// A deadline that does not come.
    static let never = UInt64.max

    /// When curl wants to be called whatever its sockets do, of ``Sleeper/now``, or ``never``.
    private let deadline: UnsafeMutablePointer<UInt64>

    /// - Parameter deadline: where the handle keeps its deadline: the loop looks at those of all of them.
    init(number: Int, epoll: Int32, maxConnections: Int, deadline: UnsafeMutablePointer<UInt64>) {
        self.number = number
        self.epoll = epoll
        self.deadline = deadline
        handle = curl_multi_init()
        _ = uw_multi_setopt_long(handle, CURLMOPT_MAXCONNECTS, maxConnections)
        let context = Unmanaged.passUnretained(self).toOpaque()
        _ = uw_multi_setopt_socket(handle, context) { _, socket, what, context, known in
            guard let context else { return 0 }
            Unmanaged<Multi>.fromOpaque(context).takeUnretainedValue().watch(socket, what, isKnown: known != nil)
            return 0
        }
        _ = uw_multi_setopt_timer(handle, context) { _, timeoutMs, context in
            guard let context else { return 0 }
            let multi = Unmanaged<Multi>.fromOpaque(context).takeUnretainedValue()
            // With -1 curl takes its wish back.
            multi.deadline.pointee = Multi.never
            if timeoutMs >= 0 { multi.deadline.pointee = Sleeper.now + UInt64(timeoutMs) * 1_000_000 }
            return 0
        }
    }

    /// No transfer may be left.
    deinit { curl_multi_cleanup(handle) }

    func add(_ transfer: Transfer) { curl_multi_add_handle(handle, transfer.easy) }

    func remove(_ transfer: Transfer) { curl_multi_remove_handle(handle, transfer.easy) }

    /// Goes on, now that the deadline has passed.
    func onDeadline() {
        deadline.pointee = Multi.never
        act(CURL_SOCKET_TIMEOUT, 0)
    }

    /// Goes on with the transfer whose socket has news.
    func onEvents(_ events: UInt32, of socket: Int32) {
        var flags: Int32 = 0
        if events & EPOLLIN.rawValue != 0 { flags |= CURL_CSELECT_IN }
        if events & EPOLLOUT.rawValue != 0 { flags |= CURL_CSELECT_OUT }
        if events & (EPOLLERR.rawValue | EPOLLHUP.rawValue) != 0 { flags |= CURL_CSELECT_ERR }
        act(socket, flags)
    }

    private func act(_ socket: Int32, _ flags: Int32) {
        var active: Int32 = 0
        curl_multi_socket_action(handle, socket, flags, &active)
    }

    /// The number of a transfer that has ended, and how; nil: no other has.
    func nextEnded() -> (id: UInt64, code: CURLcode)? {
        var left: Int32 = 0
        while let message = curl_multi_info_read(handle, &left) {
            guard message.pointee.msg == CURLMSG_DONE, let easy = message.pointee.easy_handle else { continue }
            var id: UnsafeMutableRawPointer?
            uw_easy_getinfo_pointer(easy, CURLINFO_PRIVATE, &id)
            return (UInt64(UInt(bitPattern: id)), uw_message_result(message))
        }
        return nil
    }

    /// Has the epoll instance watch a socket for what curl waits for.
    private func watch(_ socket: Int32, _ what: Int32, isKnown: Bool) {
        var event = epoll_event()
        event.data.u64 = UInt64(number) << 32 | UInt64(UInt32(bitPattern: socket))
        if what == CURL_POLL_REMOVE {
            epoll_ctl(epoll, EPOLL_CTL_DEL, socket, &event)
            return
        }
        if what & CURL_POLL_IN != 0 { event.events |= EPOLLIN.rawValue }
        if what & CURL_POLL_OUT != 0 { event.events |= EPOLLOUT.rawValue }
        if epoll_ctl(epoll, isKnown ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, socket, &event) != 0 {
            // A number that was given to another socket meanwhile.
            epoll_ctl(epoll, isKnown ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, socket, &event)
        }
        if !isKnown { curl_multi_assign(handle, socket, UnsafeMutableRawPointer(bitPattern: 1)) }
    }
}
