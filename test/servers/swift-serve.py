"""Runs one daemon of OpenStack Swift in the foreground: `swift-serve.py KIND FOLDER`.

KIND is account-server, container-server, object-server, object-updater or the name of a proxy's config; FOLDER holds
swift.conf, the rings, and KIND.conf (the updater reads object-server.conf). Debian's own commands come with services of
systemd's and read /etc/swift only.
"""

import sys

from swift.common import constraints, storage_policy, utils

kind, folder = sys.argv[1:]
utils.set_swift_dir(folder)
# Both were read from /etc/swift when they were imported.
constraints.reload_constraints()
storage_policy.reload_storage_policies()

# The log goes to stderr: there need not be a syslog.
options = {'verbose': True, 'capture_stdout': False, 'capture_stderr': False}
if kind == 'object-updater':
    from swift.common.daemon import run_daemon
    from swift.obj.updater import ObjectUpdater

    run_daemon(ObjectUpdater, f'{folder}/object-server.conf', section=kind, **options)
else:
    from swift.common.wsgi import run_wsgi

    if kind == 'object-server':
        from swift.obj.server import global_conf_callback

        options['global_conf_callback'] = global_conf_callback
    app = 'proxy-server' if kind.startswith('proxy') else kind
    sys.exit(run_wsgi(f'{folder}/{kind}.conf', app, **options))
