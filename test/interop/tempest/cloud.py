#!/usr/bin/python3
"""What the run needs in Keystone and in the network service, made if it is not there.

cloud.py identity URL   the service user and the network endpoint
cloud.py network        the outside network `public`, which is the default one, and default subnet pools; prints the id of the network
cloud.py extensions     prints the aliases that the server lists, one a line

Credentials come from the environment (OS_*), and SERVICE_PASSWORD."""
import os
import sys

import openstack


def identity(cloud, url):
    keystone = cloud.identity
    project = keystone.find_project('service') or keystone.create_project(name='service', domain_id='default')
    user = keystone.find_user('neutron') or keystone.create_user(
        name='neutron', domain_id='default', password=os.environ['SERVICE_PASSWORD'])
    for name in ('admin', 'service'):
        role = keystone.find_role(name) or keystone.create_role(name=name)
        keystone.assign_project_role_to_user(project, user, role)
    service = next(keystone.services(type='network'), None) or keystone.create_service(name='neutron', type='network')
    have = {e.interface: e for e in keystone.endpoints(service_id=service.id)}
    for interface in ('public', 'internal', 'admin'):
        if interface not in have:
            keystone.create_endpoint(service_id=service.id, interface=interface, url=url, region_id=os.environ['OS_REGION_NAME'])
        elif have[interface].url != url:
            keystone.update_endpoint(have[interface], url=url)


def network(cloud):
    public = cloud.network.find_network('public')
    if public is None:
        public = cloud.network.create_network(
            name='public', is_router_external=True, provider_network_type='flat', provider_physical_network='public')
        cloud.network.create_subnet(
            name='public-subnet', network_id=public.id, ip_version=4, cidr='172.24.4.0/24', gateway_ip='172.24.4.1',
            allocation_pools=[{'start': '172.24.4.2', 'end': '172.24.4.254'}], enable_dhcp=False)
    cloud.network.update_network(public, is_default=True)
    have = {p.name for p in cloud.network.subnet_pools()}
    for name, prefix, length in (('default-v4', '10.192.0.0/16', 26), ('default-v6', 'fd15:5017::/48', 64)):
        if name not in have:
            cloud.network.create_subnet_pool(
                name=name, prefixes=[prefix], default_prefixlen=length, is_shared=True, is_default=True)
    print(public.id)


def extensions(cloud):
    print('\n'.join(sorted(e.alias for e in cloud.network.extensions())))


if __name__ == '__main__':
    connection = openstack.connect(load_yaml_config=False)
    {'identity': identity, 'network': network, 'extensions': extensions}[sys.argv[1]](connection, *sys.argv[2:])
