# SPDX-License-Identifier: Apache-2.0
"""Pull a list of the bank into files: windows, pages, parts, and the manifest that publishes them.

The path of a page::

    workers.Workers              a thread takes a window from windows.Windows
    pull.Pull._pull_window       requests the pages of the window
    pages.iter_pages             the paginator: follows the cursor and checks each page
    pull.Pull._page              adds the window's bounds to the query; waits and repeats after a 429
    the client's `page_getter`   authenticates, sends, retries (in api/client.py)
    pages.read_page              decodes the body
    windows.Windows.accept       chooses the records that belong to the window
    window_parts.WindowParts     appends them to the open part of the window
    target.Target                publishes the parts with their manifest

Nothing here knows Airflow or HTTP. Pages come from a function, and files go to an fsspec file system.
"""
